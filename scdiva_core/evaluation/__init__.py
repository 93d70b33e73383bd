"""Judging a checkpoint on data it has never seen, beside what needs no checkpoint."""
