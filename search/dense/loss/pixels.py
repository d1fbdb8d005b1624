"""The loss of segmentation: cross-entropy of every pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from search.dense.data.scene import VOID


def pixel_loss(output: Tensor, masks: Tensor) -> Tensor:
    """A scalar, the mean over the pixels that are not `VOID`; 0 where all are.

    Args:
        output: (B, classes + 1, h, w) logits, the background first; stretched to the masks, as for inference.
        masks: (B, H, W) int64.
    """
    stretched = F.interpolate(output, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    summed = F.cross_entropy(stretched, masks, ignore_index=VOID, reduction="sum")
    return summed / (masks != VOID).sum().clamp(min=1)
