"""Maps as tokens and back, with channels last, the order in which XNNPACK keeps maps."""

from __future__ import annotations

from torch import Tensor


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)


def to_map(x: Tensor, height: int) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W)."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, height, tokens // height, channels).permute(0, 3, 1, 2)
