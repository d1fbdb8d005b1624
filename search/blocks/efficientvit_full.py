"""What cascaded group attention is held against: the same heads, each fed with all channels, no cascade."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.efficientvit_attention import CascadedGroupAttention
from search.blocks.registry import register


@register
@dataclasses.dataclass(frozen=True)
class FullHeadAttention(CascadedGroupAttention):
    """Multi-head attention in EfficientViT's block (Liu et al. 2023, table 6, row "CGA -> MHSA").

    BN, depthwise convolutions over queries, relative biases, windows and residual are those of `evit.cga`.
    """

    kind: ClassVar[str] = "evit.mha"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.mha(c=8,heads=1,qk=4,v=8,kernels=3,window=3)@3",
        "evit.mha(c=12,heads=3,qk=4,v=6,kernels=531,window=7)@9",
        "evit.mha(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7",
    )

    @property
    def splits(self) -> tuple[int, ...]:
        """Input channels of each head."""
        return (self.channels,) * self.heads

    def traffic_elements(self) -> int:
        c, heads = self.channels, self.heads
        cascade = 2 * c + 3 * min(self.v_dim, c // heads) * (heads - 1)
        rereads = 3 * c * (heads - 1)
        return super().traffic_elements() + (rereads - cascade) * self.windows * self.tokens

    def live_elements(self) -> int:
        """The residual's input, the windows that heads read, outputs of the heads so far, and what a head needs."""
        image, pixels = self.channels * self.resolution**2, self.windows * self.tokens
        padded = self.channels * pixels
        windows = padded if self.resolution > self.side else 0
        scores, qk, v = self.tokens * pixels, self.qk_dim * pixels, self.v_dim * pixels
        moments = [image + 2 * windows, 2 * image + padded]
        for head in range(self.heads):
            projected = image + head * v
            attended = projected + (0 if head == self.heads - 1 else windows)
            moments.append(projected + windows + 3 * qk + v)
            moments.append(attended + v + max(2 * scores, scores + v, 2 * qk + scores))
        outputs = self.heads * v
        return max(*moments, image + outputs + max(outputs, padded))
