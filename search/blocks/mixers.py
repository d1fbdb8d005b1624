"""Token mixers: a map in, a map of the same shape out, with neither norm nor residual.

Each reads and writes a map as hybrid networks hand it on, so its own changes of layout are part of its cost.
Softmax attention: of all tokens, inside windows (Swin), with fewer keys than queries (PVT, Shunted, Linformer).
Linear time: separable (MobileViTv2), additive (SwiftFormer), with a feature map (Katharopoulos, Performer). Without
attention: pool (PoolFormer), filter of frequencies (GFNet), MLP over tokens (MLP-Mixer, gMLP).
"""

from __future__ import annotations

import dataclasses

from typing_extensions import override

from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import ChannelKeeping, Factors, param, register


@dataclasses.dataclass(frozen=True)
class TokenMixer(ChannelKeeping):
    """A mixer of the N = resolution^2 pixels of a map of d channels."""

    removable = True

    @property
    def tokens(self) -> int:
        """Pixels N of the map."""
        return self.resolution**2

    def _to_tokens(self, ops: OpList) -> Activation:
        """Append the change from a map to tokens (1, N, d)."""
        return ops.layout(ops.input, 1, self.tokens, self.channels)

    def _to_map(self, ops: OpList, tokens: Activation) -> None:
        """Append the change from tokens to the output map."""
        ops.layout(tokens, *self.input_shape)


@dataclasses.dataclass(frozen=True)
class HeadedMixer(TokenMixer):
    """A mixer whose channels are divided between heads."""

    heads: int = param("heads")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the channels."""
        self._require(
            self.channels % self.heads == 0,
            f"{self.heads} heads do not divide {self.channels} channels; change one of them",
        )

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.channels // self.heads

    @override
    def factors(self) -> Factors:
        """Return query, key and value, whose first channels are those of the first heads of equal width.

        So blocks of equal width share all weights, whatever their heads.
        """
        parts = {"qkv": (3, self.channels), "kv": (2, self.channels)}
        return {f"{part}.{name}": {0: rows} for part, rows in parts.items() for name in ("weight", "bias")}

    def _require_tiling(self, side: int, cells: str) -> None:
        """Raise `UsageError` if squares of `side` pixels do not tile the map."""
        self._require(
            self.resolution % side == 0,
            f"{cells} of {side} px do not tile {self.resolution} px; use a multiple of {side}",
        )


@register
class MultiHeadAttention(HeadedMixer):
    """Vaswani et al. 2017, section 3.2; query, key and value have d channels each, and biases."""

    kind = "mix.mha"
    complexity = "4 N d^2 + 2 N^2 d"
    examples = ("mix.mha(c=8,heads=2)@8", "mix.mha(c=16,heads=2)@5")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        qkv = ops.linear(self._to_tokens(ops), 3 * d)
        q, k, v = (ops.layout(qkv, self.heads, n, self.head_dim) for _ in range(3))
        mixed = ops.layout(attention(ops, ops.elementwise(q), k, v), 1, n, d)
        self._to_map(ops, ops.linear(mixed, d))


@register
class WindowAttention(HeadedMixer):
    """Swin's W-MSA (Liu et al. 2021, equations 2 and 4): w x w windows without a shift, relative biases."""

    kind = "mix.window"
    complexity = "4 N d^2 + 2 w^2 N d"
    examples = ("mix.window(c=8,heads=2,w=3)@6", "mix.window(c=16,heads=4,w=3)@6")

    window: int = param("w")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the channels or windows do not tile the map."""
        super().__post_init__()
        self._require_tiling(self.window, "windows")

    @override
    def add_ops(self, ops: OpList) -> None:
        d, area = self.channels, self.window**2
        windows = self.tokens // area
        tokens = self._windows(ops).view(windows, area, d)
        qkv = ops.linear(tokens, 3 * d)
        q, k, v = (ops.copy(qkv.view(windows * self.heads, area, self.head_dim)) for _ in range(3))
        bias = (2 * self.window - 1) ** 2 * self.heads
        mixed = ops.copy(attention(ops, ops.elementwise(q), k, v, bias), windows, area, d)
        self._joined(ops, ops.linear(mixed, d))

    def _windows(self, ops: OpList) -> Activation:
        """Append the change from the map to windows."""
        return ops.copy(ops.copy(ops.input))

    def _joined(self, ops: OpList, x: Activation) -> None:
        """Append the change from windows to the map."""
        self._to_map(ops, ops.copy(x))


@register
class SpatialReductionAttention(HeadedMixer):
    """PVT's SRA (Wang et al. 2021, equations 1 to 3): keys and values come from a map reduced s times a side."""

    kind = "mix.sr"
    complexity = "3 N d^2 + 2 N d^2 / s^2 + 2 N^2 d / s^2"
    examples = ("mix.sr(c=8,heads=2,s=2)@8", "mix.sr(c=16,heads=4,s=2)@6")

    reduction: int = param("s")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the channels or the reduction the side."""
        super().__post_init__()
        self._require_tiling(self.reduction, "cells")

    @override
    def add_ops(self, ops: OpList) -> None:
        d, n = self.channels, self.tokens
        keys = n // self.reduction**2
        q = ops.linear(self._to_tokens(ops), d)
        q = ops.layout(q, self.heads, n, self.head_dim)
        reduced = ops.patches(ops.input, d, self.reduction, self.reduction)
        reduced = ops.norm(ops.layout(reduced, 1, keys, d))
        kv = ops.linear(reduced, 2 * d)
        k, v = (ops.layout(kv, self.heads, keys, self.head_dim) for _ in range(2))
        mixed = ops.layout(attention(ops, ops.elementwise(q, traffic=n * d), k, v), 1, n, d)
        self._to_map(ops, ops.linear(mixed, d))


@register
class ShuntedAttention(SpatialReductionAttention):
    """Ren et al. 2022, section 3.1: half of the heads see a map reduced s times a side, half s / 2 times.

    Reduced maps pass LayerNorm and GELU, and a 3x3 depthwise convolution of the values is added to them.
    """

    kind = "mix.shunted"
    complexity = "4 N d^2 + 5 N d^2 / s^2 + 22.5 N d / s^2 + 5 N^2 d / s^2"
    examples = ("mix.shunted(c=8,heads=2,s=2)@8", "mix.shunted(c=16,heads=4,s=2)@6")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        even = self.heads % 2 == 0 and self.reduction % 2 == 0
        self._require(even, "halves need an even number of heads and an even s")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d, heads = self.tokens, self.channels, self.heads // 2
        halves = list[Activation]()
        for rate in (self.reduction, self.reduction // 2):
            side = self.resolution // rate
            q = ops.elementwise(ops.layout(ops.linear(self._to_tokens(ops), d // 2), heads, n, self.head_dim))
            reduced = ops.patches(ops.input, d, rate, rate)
            reduced = ops.elementwise(ops.norm(ops.layout(reduced, 1, side**2, d)))
            kv = ops.linear(reduced, d)
            k = ops.layout(kv, heads, side**2, self.head_dim)
            values = ops.layout(kv, 1, d // 2, side, side)
            values = ops.add(values, ops.conv(values, d // 2, 3, groups=d // 2, bias=True, norm=False))
            v = ops.layout(values, heads, side**2, self.head_dim)
            halves.append(ops.layout(attention(ops, q, k, v), 1, n, d // 2))
        self._to_map(ops, ops.linear(ops.concat(*halves, axis=2), d))

    @override
    def factors(self) -> Factors:
        heads = (self.heads // 2, self.head_dim)
        parts: dict[str, tuple[int, ...]] = {"q": heads, "kv": (2, *heads)}
        rows = {
            f"{part}.{half}.{name}": {0: shape}
            for part, shape in parts.items()
            for half in range(2)
            for name in ("weight", "bias")
        }
        return {**rows, "proj.weight": {1: (2, *heads)}}


@register
class LinformerAttention(HeadedMixer):
    """Linformer (Wang et al. 2020, equation 7): N keys and N values become k of each by learned matrices."""

    kind = "mix.linformer"
    resolution_bound = True
    complexity = "4 N d^2 + 4 N k d"
    examples = ("mix.linformer(c=8,heads=2,k=4)@5", "mix.linformer(c=16,heads=4,k=4)@5")

    keys: int = param("k")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        q = ops.layout(ops.linear(self._to_tokens(ops), d), self.heads, n, self.head_dim)
        k, v = (
            ops.linear(ops.conv(ops.input, d, bias=True, norm=False).view(1, d, n), self.keys).view(
                self.heads, self.head_dim, self.keys
            )
            for _ in range(2)
        )
        scores = ops.softmax(ops.matmul(ops.elementwise(q), k))
        mixed = ops.matmul(scores, v.view(self.heads, self.keys, self.head_dim))
        self._to_map(ops, ops.linear(ops.layout(mixed, 1, n, d), d))


@register
class SeparableAttention(TokenMixer):
    """MobileViTv2 (Mehta & Rastegari 2022, section 3.1) over all pixels of the map as one patch position."""

    kind = "mix.separable"
    complexity = "3 N d^2 + 2 N d"
    examples = ("mix.separable(c=8)@8", "mix.separable(c=16)@5")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        qkv = ops.conv(ops.input, 1 + 2 * d, bias=True, norm=False)
        scores = ops.softmax(qkv.view(1, n, 1))
        context = ops.matmul(qkv.view(1, d, n), scores)
        values = ops.in_place(ops.layout(qkv, *self.input_shape), traffic=2 * n * d)
        values = ops.mul(values, context, in_place=True)
        ops.conv(values, d, bias=True, norm=False)


@register
class AdditiveAttention(TokenMixer):
    """SwiftFormer (Shaker et al. 2023, equations 6 to 8), one head of the map's width."""

    kind = "mix.additive"
    complexity = "4 N d^2 + 5 N d"
    examples = ("mix.additive(c=8)@8", "mix.additive(c=16)@5")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        tokens = self._to_tokens(ops)
        query = self._normalised(ops, ops.linear(tokens, d))
        key = self._normalised(ops, ops.linear(tokens, d))
        scores = ops.linear(query, 1, bias=False).view(1, 1, n)
        ops.matmul(scores, scores.view(1, n, 1), traffic=0)
        scores = ops.in_place(scores, traffic=2 * n)
        context = ops.matmul(scores, query, traffic=n + n * d)
        mixed = ops.linear(ops.mul(key, context, traffic=2 * n * d), d)
        self._to_map(ops, ops.linear(ops.add(mixed, query), d))

    def _normalised(self, ops: OpList, x: Activation) -> Activation:
        """Append the division of each token by its length."""
        length = ops.linear(ops.elementwise(x), 1, trained=False)
        return ops.mul(x, ops.in_place(length, traffic=2 * length.elements))


@register
class LinearAttention(HeadedMixer):
    """Katharopoulos et al. 2020, equations 5 to 7: each head multiplies keys by values before queries."""

    kind = "mix.linear"
    complexity = "4 N d^2 + 2 N d (d / h + 1)"
    examples = ("mix.linear(c=8,heads=2)@8", "mix.linear(c=16,heads=4)@5")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        heads, head_dim = self.heads, self.head_dim
        qkv = ops.linear(self._to_tokens(ops), 3 * d)
        q, k, v = (ops.layout(qkv, heads, n, head_dim) for _ in range(3))
        q = self._map_features(ops, q)
        k = ops.layout(self._map_features(ops, k), heads, q.shape[2], n)
        # products of keys are small; what is counted is reading queries, keys and values
        context = ops.matmul(k, v, traffic=2 * n * d)
        mixed = ops.matmul(q, context, traffic=2 * n * d)
        total = ops.matmul(q, ops.linear(k, 1, trained=False, traffic=n * d), traffic=n * d)
        mixed = ops.mul(mixed, total, in_place=True, traffic=2 * n * d)
        self._to_map(ops, ops.linear(ops.layout(mixed, 1, n, d), d))

    def _map_features(self, ops: OpList, x: Activation) -> Activation:
        """Append elu(x) + 1 as relu(x) + exp(min(x, 0))."""
        positive = ops.elementwise(x)
        return ops.add(positive, ops.elementwise(ops.elementwise(x)))


@register
class PerformerAttention(LinearAttention):
    """Choromanski et al. 2021, equation 5: linear attention by m positive random features of each head's token."""

    kind = "mix.performer"
    complexity = "4 N d^2 + 4 N d m + N (2 d + 2 h m)"
    examples = ("mix.performer(c=8,heads=2,m=3)@5", "mix.performer(c=16,heads=4,m=3)@5")

    features: int = param("m")

    @override
    def _map_features(self, ops: OpList, x: Activation) -> Activation:
        """Append exp(W x - |x|^2 / 2) / sqrt(m) of scaled tokens."""
        x = ops.elementwise(x)
        projected = ops.linear(x, self.features, trained=False)
        norms = ops.linear(ops.elementwise(x), 1, trained=False)
        return ops.elementwise(ops.elementwise(ops.add(projected, norms)))


@register
class PoolMixer(TokenMixer):
    """PoolFormer (Yu et al. 2022, equation 4): average over k x k pixels minus the pixel; no weights, no MACs."""

    kind = "mix.pool"
    complexity = "k^2 N d additions"
    examples = ("mix.pool(c=8,k=3)@8", "mix.pool(c=16,k=5)@5")

    kernel: int = param("k")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.add(ops.pool(ops.input, self.kernel, 1), ops.input)


@register
class FourierFilter(TokenMixer):
    """GFNet (Rao et al. 2021, equation 4), the DFT as matrix products, because mobile backends have no FFT.

    Only side // 2 + 1 frequencies are kept along the width; the others are conjugates.
    """

    kind = "mix.fourier"
    resolution_bound = True
    complexity = "6 N^1.5 d as matrix products (2 N d log2 N + N d by FFT)"
    examples = ("mix.fourier(c=8)@8", "mix.fourier(c=16)@8")

    @override
    def add_ops(self, ops: OpList) -> None:
        c, side = self.channels, self.resolution
        kept = side // 2 + 1
        x = ops.linear(ops.input, 2 * kept, trained=False)
        x = ops.linear(ops.layout(x, 1, c, kept, 2 * side), 2 * side, trained=False)
        x = self._filter(ops, x)
        x = ops.linear(x, 2 * side, trained=False)
        ops.linear(ops.layout(x, 1, c, side, 2 * kept), side, trained=False)

    def _filter(self, ops: OpList, x: Activation) -> Activation:
        """Append the product of the spectrum with a trained complex weight for each frequency."""
        _, c, kept, sides = x.shape
        half = (1, c, kept, sides // 2)
        real, imag = x.view(*half), ops.layout(x, *half)
        weights = c * kept * sides // 2
        by_real, by_imag = ops.elementwise(real, params=weights), ops.elementwise(imag, params=weights)
        new_real = ops.add(by_real, by_imag)
        new_imag = ops.add(ops.elementwise(real), ops.elementwise(imag))
        return ops.concat(new_real, new_imag, axis=3)


@register
class TokenMlp(TokenMixer):
    """MLP-Mixer (Tolstikhin et al. 2021, equation 1): tokens to `hidden` and back with GELU, shared by channels."""

    kind = "mix.mlp"
    resolution_bound = True
    complexity = "2 N d h"
    examples = ("mix.mlp(c=8,hidden=8)@5", "mix.mlp(c=16,hidden=16)@5")

    hidden: int = param("hidden")

    @override
    def add_ops(self, ops: OpList) -> None:
        hidden = ops.linear(ops.input.view(1, self.channels, self.tokens), self.hidden)
        ops.output = ops.linear(ops.elementwise(hidden), self.tokens).view(*self.input_shape)


@register
class SpatialGating(TokenMlp):
    """gMLP (Liu et al. 2021, equations 1 to 3): half of 2 h channels, mixed over tokens, gates the other half."""

    kind = "mix.gmlp"
    complexity = "3 N d h + N^2 h"
    examples = ("mix.gmlp(c=8,hidden=8)@5", "mix.gmlp(c=16,hidden=16)@5")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, h = self.tokens, self.hidden
        both = ops.linear(self._to_tokens(ops), 2 * h)
        both = ops.in_place(both, traffic=2 * both.elements)
        gate = ops.layout(ops.norm(ops.layout(both, 1, n, h)), 1, h, n)
        gate = ops.layout(ops.linear(gate, n), 1, n, h)
        self._to_map(ops, ops.linear(ops.mul(ops.layout(both, 1, n, h), gate), self.channels))

    @override
    def factors(self) -> Factors:
        return {f"fc1.{name}": {0: (2, self.hidden)} for name in ("weight", "bias")}
