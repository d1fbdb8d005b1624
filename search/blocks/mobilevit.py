"""The MobileViT block in two parts: its convolutional shell and its transformer layers.

AutoViT (section 3.2) follows MobileViT: local 3x3 convolution, 1x1 to the transformer's dimension, unfold
into patches, transformer layers over patches at equal pixel positions, fold, 1x1 back, concatenation with
the input, 3x3 fusion. A map whose side is not a multiple of the patch is padded before the unfold; MobileViT's own
block stretches it to whole patches, bilinearly, and the folded map back.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import ChannelKeeping, DimKeeping
from search.blocks.spec import BlockSpec, EnclosingSpec, Factors, Macs, param


def padded_side(resolution: int, patch: int) -> int:
    """Side of the map once padded to whole patches."""
    return -(-resolution // patch) * patch


@register
@dataclasses.dataclass(frozen=True)
class MobileViTShell(ChannelKeeping, EnclosingSpec):
    """Everything of a MobileViT block but its transformer layers; the last LayerNorm is the shell's."""

    kind: ClassVar[str] = "mvit.shell"
    examples: ClassVar[tuple[str, ...]] = (
        "mvit.shell(c=8,d=16,patch=2)@7",
        "mvit.shell(c=16,d=24,patch=2)@8",
    )

    dim: int = param("d")
    patch: int = param("patch")

    def params(self) -> int:
        c, d = self.channels, self.dim
        local = 9 * c * c + 2 * c + c * d
        fusion = d * c + 2 * c + 9 * 2 * c * c + 2 * c
        return local + 2 * d + fusion

    def macs(self) -> Macs:
        c, d = self.channels, self.dim
        macs = (9 * c * c + c * d + d * c + 9 * 2 * c * c) * self.resolution**2
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        c, d, area = self.channels, self.dim, self.resolution**2
        padded = padded_side(self.resolution, self.patch) ** 2
        convolutions = (2 * c + c + d + d + c + 2 * c + c) * area
        unfold_norm_fold = (2 + 2 + 2) * d * padded
        concat = 4 * c * area
        return convolutions + unfold_norm_fold + concat

    def live_elements(self) -> int:
        c, d, area = self.channels, self.dim, self.resolution**2
        tokens = d * padded_side(self.resolution, self.patch) ** 2
        image = c * area
        to_tokens = 2 * image + d * area
        unfold_norm_fold = image + 2 * tokens
        from_tokens = image + tokens + c * area
        concat_and_fusion = 4 * c * area
        return max(to_tokens, unfold_norm_fold, from_tokens, concat_and_fusion)

    def held_elements(self) -> int:
        """The input, which the fusion reads."""
        return self.channels * self.resolution**2

    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, MobileViTLayer) and (other.dim, other.patch, other.resolution) == (
            self.dim,
            self.patch,
            self.resolution,
        )

    def factors(self) -> Factors:
        return {"fusion.conv.weight": {1: (2, self.channels)}}


@register
@dataclasses.dataclass(frozen=True)
class StretchedShell(MobileViTShell):
    """A shell at a map of a side that is not whole patches, as MobileViT has it: stretched, and shrunk again."""

    kind: ClassVar[str] = "mvit.stretched"
    examples: ClassVar[tuple[str, ...]] = (
        "mvit.stretched(c=8,d=16,patch=2)@5",
        "mvit.stretched(c=16,d=24,patch=2)@7",
    )

    def traffic_elements(self) -> int:
        padded = padded_side(self.resolution, self.patch) ** 2
        return super().traffic_elements() + 2 * self.dim * (self.resolution**2 + padded)


@register
@dataclasses.dataclass(frozen=True)
class MobileViTLayer(DimKeeping):
    """Pre-norm transformer layer over the patches of the enclosing shell, each pixel position on its own.

    `resolution` is that of the shell's map. Query, key and value have heads x head_dim channels, whatever
    the dimension d is.
    """

    kind: ClassVar[str] = "mvit.layer"
    examples: ClassVar[tuple[str, ...]] = (
        "mvit.layer(d=16,heads=2,head_dim=4,ratio=1.5,patch=2)@7",
        "mvit.layer(d=16,heads=3,head_dim=8,ratio=2,patch=2)@8",
    )
    enclosed_by: ClassVar[str] = "mvit.shell"
    branches: ClassVar[tuple[str, ...]] = ("proj", "fc2")

    heads: int = param("heads")
    head_dim: int = param("head_dim")
    mlp_ratio: float = param("ratio")
    patch: int = param("patch")

    @property
    def removable(self) -> bool:
        return True

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.pixels, self.patches, self.dim)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.input_shape

    @property
    def inner(self) -> int:
        """Channels of query, of key and of value."""
        return self.heads * self.head_dim

    @property
    def hidden(self) -> int:
        """Channels of the MLP's middle."""
        return int(self.mlp_ratio * self.dim)

    @property
    def patches(self) -> int:
        """Tokens N of one attention (patches of the map)."""
        return (padded_side(self.resolution, self.patch) // self.patch) ** 2

    @property
    def pixels(self) -> int:
        """Attentions P run side by side (pixels of a patch)."""
        return self.patch**2

    def params(self) -> int:
        d, inner, hidden = self.dim, self.inner, self.hidden
        attention = 2 * d + d * 3 * inner + 3 * inner + inner * d + d
        return attention + 2 * d + d * hidden + hidden + hidden * d + d

    def macs(self) -> Macs:
        d, tokens = self.dim, self.pixels * self.patches
        linear = tokens * (4 * d * self.inner + 2 * d * self.hidden)
        products = 2 * tokens * self.patches * self.inner
        return Macs(linear, linear + products)

    def traffic_elements(self) -> int:
        d, tokens = self.dim, self.pixels * self.patches
        norms_and_residuals = (2 * 2 + 2 * 3) * d
        linear = d + 3 * self.inner + self.inner + d + d + self.hidden + self.hidden + d
        scores = 4 * self.heads * self.patches
        products = 4 * self.inner
        return tokens * (norms_and_residuals + linear + scores + products)

    def live_elements(self) -> int:
        """Tokens in and out, and what attention and MLP need; what the shell holds is the shell's."""
        tokens, inner, hidden = self.dim, self.inner, self.hidden
        scores = self.heads * self.patches
        qkv = 2 * tokens + 3 * inner
        split = tokens + 6 * inner
        products = tokens + 3 * inner + scores
        softmax = tokens + inner + 2 * scores
        mix = tokens + 2 * inner + scores
        mlp = 2 * tokens + hidden
        return self.pixels * self.patches * max(3 * tokens, qkv, split, products, softmax, mix, mlp)

    def factors(self) -> Factors:
        heads = (self.heads, self.head_dim)
        return {"qkv.weight": {0: (3, *heads)}, "qkv.bias": {0: (3, *heads)}, "proj.weight": {1: heads}}
