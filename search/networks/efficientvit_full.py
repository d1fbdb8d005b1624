"""EfficientViT's attention block with heads that see all channels."""

from __future__ import annotations

import torch
from torch import Tensor

from search.blocks.efficientvit_full import FullHeadAttention
from search.networks.efficientvit import CascadedAttention
from search.networks.module import module_of


class FullAttention(CascadedAttention):
    """(B, C, H, W) to the same: multi-head attention within windows, and a residual."""

    def _attend(self, x: Tensor) -> Tensor:
        attended: Tensor = self.proj(torch.cat([head(x) for head in self.heads], 1))
        return attended


module_of.register(FullHeadAttention, FullAttention)
