"""LocalViT (Li et al. 2021): a transformer layer whose feed-forward network is an inverted residual on the map."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.attention import AttentionCost
from search.blocks.registry import register
from search.blocks.spec import Macs, param
from search.blocks.tokens import TokenLayer


@register
@dataclasses.dataclass(frozen=True)
class LocalVitLayer(TokenLayer):
    """Attention, then 1x1, depthwise 3x3, squeeze and excitation, 1x1 on the tokens as a map (section 3).

    The class token passes by the convolutions, which have BN and, but for the last, h-swish. As in the authors'
    code no LayerNorm stands before them.
    """

    kind: ClassVar[str] = "localvit.layer"
    examples: ClassVar[tuple[str, ...]] = ("localvit.layer(d=12,heads=2,ratio=4,r=12)@3",)

    reduction: int = param("r")

    @property
    def squeezed(self) -> int:
        """Channels in the middle of squeeze and excitation."""
        return self.hidden // self.reduction

    @property
    def _attention(self) -> AttentionCost:
        return AttentionCost(self.dim, self.heads, self.tokens, qkv_bias=True)

    def params(self) -> int:
        d, hidden, squeezed = self.dim, self.hidden, self.squeezed
        convolutions = d * hidden + 9 * hidden + hidden * d
        norms = 2 * (hidden + hidden + d)
        excitation = 2 * hidden * squeezed + squeezed + hidden
        return self._attention.params() + convolutions + norms + excitation

    def macs(self) -> Macs:
        convolutions = (2 * self.dim + 9) * self.hidden * self.resolution**2
        local = convolutions + 2 * self.hidden * self.squeezed
        return self._attention.macs() + Macs(local, local)

    def depthwise_macs(self) -> int:
        return 9 * self.hidden * self.resolution**2

    def traffic_elements(self) -> int:
        area, d, hidden = self.resolution**2, self.dim, self.hidden
        convolutions = (d + 3 * hidden + hidden + d) * area
        excitation = (3 * area + 3) * hidden
        residual_and_join = 3 * d * area + 2 * self.out_elements
        return self._attention.traffic_elements() + convolutions + excitation + residual_and_join

    def live_elements(self) -> int:
        tokens, wide, image = (
            self.out_elements,
            self.hidden * self.resolution**2,
            self.dim * self.resolution**2,
        )
        scaled = tokens + 2 * wide + self.hidden
        joined = 2 * tokens + image
        return max(self._attention.live_elements(), scaled, tokens + wide + image, joined)
