"""EfficientViT's studies (Liu et al. 2023, section 2) on a small scale: a module each, with `main(options)`."""
