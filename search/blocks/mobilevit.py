"""The MobileViT block in two parts: its convolutional shell and its transformer layers.

AutoViT (section 3.2) follows MobileViT: local 3x3 convolution, 1x1 to the transformer's dimension, unfold
into patches, transformer layers over patches at equal pixel positions, fold, 1x1 back, concatenation with the
input, 3x3 fusion. AutoViT pads a map whose side is not a multiple of the patch. MobileViT resizes it
bilinearly to whole patches and resizes the folded map back.
"""

from __future__ import annotations

from typing_extensions import override

from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import BlockSpec, ChannelKeeping, DimKeeping, EnclosingSpec, Factors, param, register


def padded_side(resolution: int, patch: int) -> int:
    """Return the side of a map that is padded to whole patches."""
    return -(-resolution // patch) * patch


@register
class MobileViTShell(ChannelKeeping, EnclosingSpec):
    """A MobileViT block without its transformer layers; the last LayerNorm is the shell's."""

    kind = "mvit.shell"
    examples = ("mvit.shell(c=8,d=16,patch=2)@7", "mvit.shell(c=16,d=24,patch=2)@8")

    dim: int = param("d")
    patch: int = param("patch")

    @override
    def add_ops(self, ops: OpList) -> None:
        x = ops.input
        y = ops.conv(ops.conv(x, self.channels, 3), self.dim, norm=False)
        y = self._mix(ops, y)
        y = ops.conv(y.view(1, self.dim, self.resolution, self.resolution), self.channels)
        ops.conv(ops.concat(x, y), self.channels, 3)

    def _mix(self, ops: OpList, y: Activation) -> Activation:
        """Append unfold, LayerNorm and fold of a padded map."""
        side = padded_side(self.resolution, self.patch)
        positions = self.patch**2
        tokens = ops.copy(y.view(1, self.dim, side, side), positions, side**2 // positions, self.dim)
        return ops.copy(ops.norm(tokens))

    @override
    def surrounding_elements(self) -> int:
        """Return the elements of the input, which the fusion reads."""
        return self.channels * self.resolution**2

    @override
    def encloses(self, other: BlockSpec) -> bool:
        own = (self.dim, self.patch, self.resolution)
        return isinstance(other, MobileViTLayer) and (other.dim, other.patch, other.resolution) == own

    @override
    def factors(self) -> Factors:
        return {"fusion.conv.weight": {1: (2, self.channels)}}


@register
class ResizingShell(MobileViTShell):
    """The shell of MobileViT for a map whose side is not whole patches: resized to whole patches and back."""

    kind = "mvit.stretched"
    examples = ("mvit.stretched(c=8,d=16,patch=2)@5", "mvit.stretched(c=16,d=24,patch=2)@7")

    @override
    def _mix(self, ops: OpList, y: Activation) -> Activation:
        side = padded_side(self.resolution, self.patch)
        if side == self.resolution:
            return super()._mix(ops, y)
        folded = super()._mix(ops, ops.resize(y, side))
        return ops.resize(folded.view(1, self.dim, side, side), self.resolution)


@register
class MobileViTv3Shell(ResizingShell):
    """The shell of MobileViTv3 (Wadekar & Chaurasia 2022, arXiv:2209.15159, as in the authors' code).

    The local convolution is depthwise, a 1x1 convolution fuses the local map with the global one, and the input is
    added.
    """

    kind = "mvit.v3"
    elastic = False
    examples = ("mvit.v3(c=8,d=16,patch=2)@5", "mvit.v3(c=16,d=24,patch=2)@8")

    @override
    def add_ops(self, ops: OpList) -> None:
        x = ops.input
        local = ops.conv(ops.depthwise(x, 3), self.dim, norm=False)
        mixed = self._mix(ops, local).view(1, self.dim, self.resolution, self.resolution)
        fused = ops.conv(ops.concat(local, ops.conv(mixed, self.channels)), self.channels)
        ops.add(fused, x)

    @override
    def surrounding_elements(self) -> int:
        """Return the elements of the input and of the local map."""
        return (self.channels + self.dim) * self.resolution**2


@register
class MobileViTLayer(DimKeeping):
    """Pre-norm transformer layer over the patches of the enclosing shell, each pixel position on its own.

    `resolution` is that of the shell's map. Query, key and value have heads x head_dim channels each,
    independent of the dimension d.
    """

    kind = "mvit.layer"
    examples = (
        "mvit.layer(d=16,heads=2,head_dim=4,ratio=1.5,patch=2)@7",
        "mvit.layer(d=16,heads=3,head_dim=8,ratio=2,patch=2)@8",
    )
    enclosed_by = "mvit.shell"
    branches = ("proj", "fc2")
    removable = True

    heads: int = param("heads")
    head_dim: int = param("head_dim")
    mlp_ratio: float = param("ratio")
    patch: int = param("patch")

    @property
    @override
    def input_shape(self) -> tuple[int, ...]:
        """(P, N, d): P = patch^2 pixel positions, whose attentions run side by side, and N patches."""
        patches = (padded_side(self.resolution, self.patch) // self.patch) ** 2
        return (self.patch**2, patches, self.dim)

    @property
    def inner(self) -> int:
        """Channels of query, of key and of value."""
        return self.heads * self.head_dim

    @property
    def hidden(self) -> int:
        """Channels between the MLP's layers."""
        return int(self.mlp_ratio * self.dim)

    @override
    def add_ops(self, ops: OpList) -> None:
        x = ops.input
        positions, patches, _ = x.shape
        qkv = ops.linear(ops.norm(x), 3 * self.inner)
        heads = (positions * self.heads, patches, self.head_dim)
        q, k, v = (ops.copy(qkv, *heads, traffic=0) for _ in range(3))
        mixed = ops.copy(attention(ops, q, k, v), positions, patches, self.inner, traffic=0)
        x = ops.add(ops.linear(mixed, self.dim), x)
        ops.add(ops.linear(ops.linear(ops.norm(x), self.hidden), self.dim), x)

    @override
    def factors(self) -> Factors:
        heads = (self.heads, self.head_dim)
        return {"qkv.weight": {0: (3, *heads)}, "qkv.bias": {0: (3, *heads)}, "proj.weight": {1: heads}}
