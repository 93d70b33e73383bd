"""Forward corruption, dual denoising loss and reverse sampler."""
