"""The published denoiser, its optional heads, and its checkpoints."""
