"""Corpus shards in, checkpoint out; needs only torch, numpy, safetensors and the standard library."""
