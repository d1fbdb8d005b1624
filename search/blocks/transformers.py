"""Transformers with a class token.

AutoViT's Table 2: T2T-ViT, CeiT and LocalViT, with ViT's embedding and head.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from typing_extensions import override

from search.blocks.mobilenet import PooledStem
from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import BlockSpec, Classifying, DimKeeping, EnclosingSpec, param, register


@dataclasses.dataclass(frozen=True)
class TokenBlock(BlockSpec):
    """A block on a class token and the pixels of a map of side `resolution`."""

    @property
    @override
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.resolution**2 + 1, self.in_channels)


@dataclasses.dataclass(frozen=True)
class TransformerLayer(DimKeeping, TokenBlock):
    """Pre-norm attention and a feed-forward network, each with a residual."""

    elastic = False

    heads: int = param("heads")
    mlp_ratio: float = param("ratio")

    @property
    def hidden(self) -> int:
        """Channels in the middle of the feed-forward network."""
        return int(self.mlp_ratio * self.dim)

    def _attend(
        self, ops: OpList, x: Activation, *, qkv_bias: bool = True, query_traffic: int = 0
    ) -> Activation:
        """Append the attention branch: LayerNorm, multi-head self-attention, projection with bias, residual."""
        _, n, d = x.shape
        qkv = ops.linear(ops.norm(x), 3 * d, bias=qkv_bias).view(self.heads, n, d // self.heads)
        q = ops.elementwise(qkv, traffic=query_traffic)
        return ops.add(ops.linear(attention(ops, q, qkv, qkv).view(1, n, d), d), x)

    def _pixels(self, x: Activation) -> Activation:
        """View all tokens but the class token as a map."""
        return x.view(1, self.dim, self.resolution, self.resolution)


@dataclasses.dataclass(frozen=True)
class Patches(BlockSpec):
    """Makes a token of `dim` channels of each k x k patch of a map; patches may overlap."""

    elastic = False

    inputs: int = param("in")
    dim: int = param("d")
    kernel: int = param("k")
    stride: int = param("s")

    @property
    def padding(self) -> int:
        """Zeros on each side: none for patches side by side, as in T2T-ViT's soft split for overlapping ones."""
        return (self.kernel - self.stride + 1) // 2

    @property
    @override
    def out_resolution(self) -> int:
        return (self.resolution + 2 * self.padding - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Embedding(Patches):
    """k x k convolution with bias, the map's pixels as tokens, a class token before them, positions added."""

    learned_positions: ClassVar[bool]

    @override
    def add_ops(self, ops: OpList) -> None:
        patches = ops.patches(ops.input, self.dim, self.kernel, self.stride)
        tokens = ops.with_class_token(patches.view(1, self.out_resolution**2, self.dim))
        ops.elementwise(tokens, params=tokens.elements if self.learned_positions else 0)


@register
class TokenEmbed(Embedding):
    """Patch embedding of ViT (Dosovitskiy et al. 2021, equation 1), with learned positions."""

    kind = "tokens.embed"
    examples = ("tokens.embed(in=3,d=8,k=4,s=4)@12",)
    learned_positions = True


@register
class TokenHead(Classifying, TokenBlock):
    """LayerNorm and a linear classifier on the class token."""

    kind = "head.token"
    examples = ("head.token(in=8,classes=10)@2", "head.token(in=12,classes=10)@3")

    @override
    def add_ops(self, ops: OpList) -> None:
        first = ops.layout(ops.input, 1, self.inputs, traffic=ops.input.elements)
        ops.linear(ops.norm(first), self.classes)


@register
class T2tPerformer(Patches):
    """One tokens-to-token step (Yuan et al. 2021, equations 2 and 3): soft split, Performer, a map again.

    Attention over all tokens is linear by e/2 random features (Choromanski et al. 2021, equation 5), with one
    head and the residual from the values. The soft split is a depthwise convolution with fixed weights of 0
    and 1, because XNNPACK has no unfold. Its MACs are in `total` alone, as are those of the features and of
    attention's products.
    """

    kind = "t2t.performer"
    examples = ("t2t.performer(in=3,e=8,k=7,s=4)@16", "t2t.performer(in=8,e=8,k=3,s=2)@9")

    dim: int = param("e")

    @property
    def window(self) -> int:
        """Channels of a token after the soft split."""
        return self.inputs * self.kernel**2

    @property
    def features(self) -> int:
        """Random features m of a query or key."""
        return self.dim // 2

    @override
    def add_ops(self, ops: OpList) -> None:
        n, e, m = self.out_resolution**2, self.dim, self.features
        split = ops.patches(ops.input, self.window, self.kernel, self.stride, trained=False)
        kqv = ops.linear(ops.norm(split.view(1, n, self.window)), 3 * e)
        value = kqv.view(1, n, e)
        keys, queries = self._map_features(ops, value), self._map_features(ops, value)
        # sums over tokens are small; what is counted is reading keys, queries and values
        across = keys.view(1, m, n)
        total = ops.matmul(queries, ops.linear(across, 1, trained=False, traffic=n * m), traffic=n * (m + 1))
        context = ops.matmul(across, value, traffic=n * (m + e))
        attended = ops.matmul(queries, context, traffic=n * (m + e))
        attended = ops.mul(attended, total, traffic=n * (3 * e + 1))
        x = ops.add(ops.linear(attended, e), value)
        y = ops.linear(ops.linear(ops.norm(x), e), e)
        ops.output = ops.add(y, x).view(1, e, self.out_resolution, self.out_resolution)

    def _map_features(self, ops: OpList, x: Activation) -> Activation:
        """Append exp(W x - |x|^2 / 2) / sqrt(m): (1, n, e) to (1, n, m)."""
        n, e, m = self.out_resolution**2, self.dim, self.features
        projected = ops.linear(x, m, trained=False)
        norms = ops.linear(ops.elementwise(x, traffic=n * e), 1, trained=False)
        shifted = ops.add(projected, norms, traffic=2 * n * m)
        return ops.in_place(ops.in_place(shifted, traffic=2 * n * m), traffic=2 * n * m)


@register
class T2tEmbed(Embedding):
    """The last soft split and its linear layer, which together are a convolution; positions are fixed sinusoids."""

    kind = "t2t.embed"
    examples = ("t2t.embed(in=8,d=12,k=3,s=2)@7",)
    learned_positions = False


@register
class T2tLayer(TransformerLayer):
    """T2T-ViT's pre-norm attention without bias in query, key and value, and MLP with GELU (equation 4)."""

    kind = "t2t.layer"
    examples = ("t2t.layer(d=12,heads=2,ratio=2)@3",)
    removable = True

    @override
    def add_ops(self, ops: OpList) -> None:
        x = self._attend(ops, ops.input, qkv_bias=False)
        ops.add(ops.linear(ops.linear(ops.norm(x), self.hidden), self.dim), x)


@register
class CeitStem(PooledStem):
    """Convolution, BN and pool of CeiT's image-to-tokens (equation 4), before a `tokens.embed`."""

    kind = "ceit.stem"
    examples = ("ceit.stem(in=3,out=4)@9", "ceit.stem(in=3,out=8)@16")
    kernel = 7
    activation = ""


@register
class CeitLayer(TransformerLayer):
    """CeiT's layer (Yuan et al. 2021, equations 5 to 10): attention, then LeFF.

    LeFF (locally enhanced feed-forward) is 1x1, depthwise 3x3 and 1x1 convolutions with bias and BN on the
    tokens as a map.
    """

    kind = "ceit.layer"
    examples = ("ceit.layer(d=12,heads=2,ratio=4)@3",)
    removable = True
    enclosed_by = "ceit.encoder"

    @override
    def add_ops(self, ops: OpList) -> None:
        x = self._attend(ops, ops.input)
        normed = ops.norm(x)
        local = ops.conv(self._pixels(normed), self.hidden, bias=True)
        local = ops.conv(ops.depthwise(local, 3, bias=True), self.dim, bias=True)
        first, pixels = normed.view(1, 1, self.dim), local.view(1, self.resolution**2, self.dim)
        ops.add(x, ops.concat(first, pixels))


@register
class CeitEncoder(EnclosingSpec, TokenBlock):
    """Runs `ceit.layer`s and classifies the last class token after it attended over all layers' (figure 5).

    One class token a layer: if fewer than `depth` layers are inside, a missing one is the identity, which
    leaves the class token as it was.
    """

    kind = "ceit.encoder"
    examples = ("ceit.encoder(d=12,heads=2,ratio=4,depth=2,classes=10)@4",)
    elastic = False

    dim: int = param("d")
    heads: int = param("heads")
    mlp_ratio: float = param("ratio")
    depth: int = param("depth")
    classes: int = param("classes")

    @property
    def hidden(self) -> int:
        """Channels in the middle of the last feed-forward network."""
        return int(self.mlp_ratio * self.dim)

    @override
    def add_ops(self, ops: OpList) -> None:
        d, depth, heads = self.dim, self.depth, self.heads
        seen = ops.copy(ops.input, 1, depth, d, traffic=ops.input.elements + 2 * depth * d)
        normed = ops.norm(tokens := ops.elementwise(seen, params=depth * d))
        query = ops.linear(normed.view(1, 1, d), d).view(heads, 1, d // heads)
        keys = ops.linear(normed, 2 * d).view(heads, d // heads, depth)
        # scores are few: what is counted is reading keys and values, and what goes from layer to layer
        scores = ops.softmax(ops.matmul(query, keys, traffic=(1 + depth) * d), traffic=0)
        mixed = ops.matmul(scores, keys.view(heads, depth, d // heads), traffic=(1 + depth) * d)
        last = ops.add(ops.linear(mixed.view(1, 1, d), d), tokens.view(1, 1, d))
        y = ops.linear(ops.linear(ops.norm(last), self.hidden), d)
        last = ops.add(y, last, traffic=0)
        ops.linear(ops.in_place(last, params=2 * d).view(1, d), self.classes)

    @override
    def surrounding_elements(self) -> int:
        """Return the elements of the class tokens of all layers."""
        return self.depth * self.dim

    @override
    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, CeitLayer) and (other.dim, other.resolution) == (self.dim, self.resolution)


@register
class LocalVitLayer(TransformerLayer):
    """LocalViT's layer (Li et al. 2021, section 3): attention, then an inverted residual on the map.

    The inverted residual is 1x1, depthwise 3x3, squeeze and excitation, 1x1, with BN and, but for the last,
    h-swish. The class token skips the convolutions. As in the authors' code no LayerNorm precedes them.
    """

    kind = "localvit.layer"
    examples = ("localvit.layer(d=12,heads=2,ratio=4,r=12)@3",)
    removable = True

    reduction: int = param("r")

    @property
    def squeezed(self) -> int:
        """Channels in the middle of squeeze and excitation."""
        return self.hidden // self.reduction

    @override
    def add_ops(self, ops: OpList) -> None:
        x = self._attend(ops, ops.input)
        pixels = self._pixels(x)
        y = ops.depthwise(ops.conv(pixels, self.hidden), 3)
        # of the gate's small tensors only one read is counted
        squeezed = ops.linear(ops.mean(y), self.squeezed, traffic=self.hidden)
        y = ops.mul(y, ops.linear(squeezed, self.hidden, traffic=0))
        local = ops.add(ops.conv(y, self.dim), pixels)
        ops.concat(x.view(1, 1, self.dim), local.view(1, self.resolution**2, self.dim))
