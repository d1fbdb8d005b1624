"""Torch modules of the token mixers: a map (B, C, H, W) to a map of the same shape, without norm or residual."""
