"""Masks of a segmentation network's raw output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def masks(output: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, classes + 1, h, w) of the network -> (B, H, W), the class of each pixel; 0 is the background.

    Logits are stretched to `size` bilinearly before the largest is taken, as torchvision's DeepLabv3 does.
    """
    return F.interpolate(output, size, mode="bilinear", align_corners=False).argmax(1)
