"""Data intake: gene vocabulary, preflight, ``.h5ad`` streaming, tokenizer, cell sets."""
