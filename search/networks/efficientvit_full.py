"""EfficientViT's attention block with heads that see all channels."""

from __future__ import annotations

import torch
from torch import Tensor

from search.networks.efficientvit import CascadedAttention


class FullAttention(CascadedAttention):
    """(B, C, H, W) to the same: multi-head attention within windows, and a residual."""

    def _attend(self, x: Tensor) -> Tensor:
        biases = self.bias()
        outputs = [head(x, biases[index]) for index, head in enumerate(self.heads)]
        attended: Tensor = self.proj(torch.cat(outputs, 1))
        return attended
