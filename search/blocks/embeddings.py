"""Embeddings: from an image, or a map, to the map whose pixels are the tokens of a transformer.

Convolutional ones are also chains of `conv` and the stems of CeiT and EfficientViT; tokens-to-token is
`t2t.performer`.
"""

from __future__ import annotations

from typing_extensions import override

from search.blocks.ops import OpList
from search.blocks.spec import BlockSpec, param, register
from search.blocks.transformers import Patches


@register
class PatchEmbed(Patches):
    """Linear map of patches side by side or overlapping (ViT, Dosovitskiy et al. 2021, equation 1): a convolution.

    It has a bias and no norm.
    """

    kind = "embed.patch"
    examples = ("embed.patch(in=3,d=8,k=4,s=4)@12", "embed.patch(in=3,d=16,k=4,s=4)@8")
    elastic = True

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.patches(ops.input, self.dim, self.kernel, self.stride)


@register
class OverlapEmbed(Patches):
    """CvT's convolutional token embedding (Wu et al. 2021, section 3.2): overlapping patches, then LayerNorm.

    PVTv2's (Wang et al. 2022, section 3.2) is the same but for a padding of k // 2.
    """

    kind = "embed.overlap"
    examples = ("embed.overlap(in=3,d=8,k=5,s=4)@12", "embed.overlap(in=3,d=16,k=7,s=4)@8")
    elastic = True

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.norm(ops.patches(ops.input, self.dim, self.kernel, self.stride), axis=1)


@register
class CrossEmbed(BlockSpec):
    """Patches of two sizes, as in CrossViT's two branches (Chen et al. 2021, section 3.2), in one map.

    Half of the channels are patches of s x s, the others patches of 2s x 2s whose map is resized bilinearly.
    """

    kind = "embed.cross"
    examples = ("embed.cross(in=3,d=8,s=4)@16", "embed.cross(in=3,d=16,s=4)@24")

    inputs: int = param("in")
    dim: int = param("d")
    stride: int = param("s")

    def __post_init__(self) -> None:
        """Raise `UsageError` if the channels have no halves or larger patches do not tile the map."""
        self._require(self.dim % 2 == 0, f"{self.dim} channels have no halves; use an even number")
        self._require(
            self.resolution % (2 * self.stride) == 0,
            f"patches of {2 * self.stride} px do not tile {self.resolution} px; use a multiple of it",
        )

    @override
    def add_ops(self, ops: OpList) -> None:
        half = self.dim // 2
        small = ops.patches(ops.input, half, self.stride, self.stride)
        large = ops.patches(ops.input, half, 2 * self.stride, 2 * self.stride)
        ops.concat(small, ops.resize(large, small.shape[2]))
