"""Token mixers of neighbourhoods, windows and stripes; the conventions are those of `search.blocks.mixers`.

Neighbourhoods are unfolded by depthwise convolutions with fixed weights of 0 and 1, shifts are slices and
concatenations: XNNPACK has them, but no unfold, roll or gather.
"""

from __future__ import annotations

from typing_extensions import override

from search.blocks.mixers import HeadedMixer, TokenMixer, WindowAttention
from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import Factors, param, register

AXIAL_SHIFTS = 5
"""Shifts along an axis of `mix.axial`: the paper's shift size."""


@register
class SpatialShift(TokenMixer):
    """S2-MLP (Yu et al. 2022, equations 4 to 7): quarters of the channels one pixel down, up, right and left.

    A linear layer with GELU precedes the shifts, another one follows; pixels at the edge keep their values.
    """

    kind = "mix.shift"
    complexity = "2 N d^2"
    examples = ("mix.shift(c=8)@4", "mix.shift(c=16)@5")

    def __post_init__(self) -> None:
        """Raise `UsageError` if the channels have no quarters or the map no second pixel."""
        fits = self.channels % 4 == 0 and self.resolution > 1
        self._require(fits, "shifts need a multiple of 4 channels and a map of 2 px or more")

    @override
    def add_ops(self, ops: OpList) -> None:
        side, quarter = self.resolution, self.channels // 4
        x = ops.conv(ops.input, self.channels, bias=True, norm=False)
        x = ops.in_place(x, traffic=2 * x.elements)
        edge, rest = x.view(1, quarter, 1, side), x.view(1, quarter, side - 1, side)
        shifted = [ops.concat(edge, rest, axis=2) for _ in range(4)]
        ops.conv(ops.concat(*shifted), self.channels, bias=True, norm=False)

    @override
    def factors(self) -> Factors:
        quarters = (4, self.channels // 4)
        return {"fc1.weight": {0: quarters}, "fc1.bias": {0: quarters}, "fc2.weight": {1: quarters}}


@register
class AxialShift(TokenMixer):
    """AS-MLP (Lian et al. 2022, section 3.2): fifths of the channels 2 pixels back to 2 ahead, along either axis.

    A linear layer with GELU precedes the shifts, whose uncovered pixels are zero; one follows along each axis, and
    one their sum. The first three have BN where the paper normalises over all channels and pixels.
    """

    kind = "mix.axial"
    complexity = "4 N d^2"
    examples = ("mix.axial(c=8)@4", "mix.axial(c=16)@5")

    def __post_init__(self) -> None:
        """Raise `UsageError` if the channels have no fifths."""
        self._require(self.channels >= AXIAL_SHIFTS, "axial shifts need 5 channels or more")

    @override
    def add_ops(self, ops: OpList) -> None:
        side = self.resolution
        x = ops.conv(ops.input, self.channels)
        x = ops.in_place(x, traffic=2 * x.elements)
        size = -(-self.channels // AXIAL_SHIFTS)
        groups = [min(size, self.channels - start) for start in range(0, self.channels, size)]
        branches = list[Activation]()
        for _ in range(2):
            wide = ops.copy(x, 1, self.channels, side + AXIAL_SHIFTS - 1, side)
            parts = [wide.view(1, group, side, side) for group in groups]
            shifted = ops.conv(ops.concat(*parts), self.channels)
            branches.append(ops.in_place(shifted, traffic=2 * shifted.elements))
        ops.conv(ops.add(branches[0], branches[1]), self.channels, bias=True, norm=False)


@register
class ShiftedWindowAttention(WindowAttention):
    """Swin's SW-MSA (Liu et al. 2021, section 3.2): the windows of `mix.window`, moved by half a window.

    The map is rolled, and pixels of a window that are no neighbours in the map do not attend to each other.
    """

    kind = "mix.shifted"
    examples = ("mix.shifted(c=8,heads=2,w=3)@6", "mix.shifted(c=16,heads=4,w=3)@6")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 < self.window < self.resolution, "shifted windows must be smaller than the map")

    @override
    def _windows(self, ops: OpList) -> Activation:
        return ops.copy(self._rolled(ops, ops.input))

    @override
    def _joined(self, ops: OpList, x: Activation) -> None:
        self._rolled(ops, ops.copy(x).view(*self.input_shape))

    def _rolled(self, ops: OpList, x: Activation) -> Activation:
        """Append a concatenation of two parts along either side."""
        half = (1, self.channels, self.resolution, self.resolution // 2)
        whole = (1, self.channels, self.resolution, self.resolution - half[3])
        for _ in range(2):
            x = ops.concat(x.view(*half), x.view(*whole), axis=3)
        return x


@register
class GridAttention(WindowAttention):
    """MaxViT's grid attention (Tu et al. 2022, section 3.3): w x w pixels spread evenly over the map."""

    kind = "mix.grid"
    examples = ("mix.grid(c=8,heads=2,w=3)@6", "mix.grid(c=16,heads=4,w=3)@6")


@register
class FocalAttention(WindowAttention):
    """Focal Transformer (Yang et al. 2021, equations 1 to 3): a window's pixels and all windows, pooled.

    These are its two levels if the coarse region covers the map. Pooling weighs the pixels of a window by learned
    numbers; both levels share query, key and value, and have relative biases.
    """

    kind = "mix.focal"
    resolution_bound = True
    complexity = "4 N d^2 + 2 w^2 N d + N d + 3 N d^2 / w^2 + 2 N^2 d / w^2"
    examples = ("mix.focal(c=8,heads=2,w=3)@6", "mix.focal(c=16,heads=4,w=3)@6")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d, area = self.tokens, self.channels, self.window**2
        windows, heads = n // area, self.heads
        tokens = self._windows(ops).view(windows, area, d)
        qkv = ops.linear(tokens, 3 * d)
        q, k, v = (ops.copy(qkv.view(windows * heads, area, self.head_dim)) for _ in range(3))
        q = ops.elementwise(q)
        pooled = ops.linear(ops.copy(tokens, windows, d, area), 1)
        qkv = ops.linear(pooled.view(1, windows, d), 3 * d, trained=False)
        far_k, far_v = (ops.layout(qkv, heads, windows, self.head_dim) for _ in range(2))
        near = ops.matmul(q, k.view(*k.shape[:1], self.head_dim, area))
        far = ops.matmul(ops.copy(q, heads, n, self.head_dim), far_k.view(heads, self.head_dim, windows))
        near = ops.elementwise(near, params=(2 * self.window - 1) ** 2 * heads)
        far = ops.elementwise(far, params=(2 * (self.resolution // self.window) - 1) ** 2 * heads)
        far = ops.copy(far, windows * heads, area, windows)
        scores = ops.softmax(ops.concat(near, far, axis=2))
        near, far = ops.layout(scores, *near.shape), ops.copy(scores, heads, n, windows)
        mixed = ops.add(ops.matmul(near, v), ops.copy(ops.matmul(far, far_v), *v.shape))
        self._joined(ops, ops.linear(ops.copy(mixed, windows, area, d), d))


@register
class CrossStripeAttention(HeadedMixer):
    """CSWin (Dong et al. 2022, equations 4 to 6): half of the heads in stripes of w rows, half in w columns.

    Its positional encoding (LePE) is not a part.
    """

    kind = "mix.cross"
    complexity = "4 N d^2 + 2 w N^1.5 d"
    examples = ("mix.cross(c=8,heads=2,w=2)@6", "mix.cross(c=16,heads=4,w=2)@6")

    window: int = param("w")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.heads % 2 == 0, "half of the heads need an even number of them")
        self._require_tiling(self.window, "stripes")

    @override
    def add_ops(self, ops: OpList) -> None:
        half, side = self.channels // 2, self.resolution
        heads = (side // self.window * self.heads // 2, self.window * side, self.head_dim)
        halves = list[Activation]()
        for _ in range(2):
            qkv = ops.linear(self._to_tokens(ops), 3 * half)
            q, k, v = (ops.copy(qkv.view(*heads)) for _ in range(3))
            mixed = attention(ops, ops.elementwise(q), k, v)
            halves.append(ops.copy(mixed, 1, self.tokens, half))
        self._to_map(ops, ops.linear(ops.concat(*halves, axis=2), self.channels))

    @override
    def factors(self) -> Factors:
        heads = (self.heads // 2, self.head_dim)
        rows = {f"qkv.{half}.{name}": {0: (3, *heads)} for half in range(2) for name in ("weight", "bias")}
        return {**rows, "proj.weight": {1: (2, *heads)}}


@register
class OutlookAttention(HeadedMixer):
    """VOLO (Yuan et al. 2021, equations 3 to 5): each pixel mixes its k x k neighbourhood by weights of its own.

    Its tokens give softmax weights k^2 x k^2 a head; what all neighbourhoods give for a pixel is added.
    """

    kind = "mix.outlook"
    complexity = "2 N d^2 + N d h k^4 + 3 k^4 N d"
    examples = ("mix.outlook(c=8,heads=2,k=3)@4", "mix.outlook(c=16,heads=4,k=3)@5")

    kernel: int = param("k")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, area = self.tokens, self.kernel**2
        weights = ops.linear(self._to_tokens(ops), self.heads * area**2).view(n * self.heads, area, area)
        weights = ops.softmax(ops.elementwise(weights))
        values = ops.conv(ops.input, self.channels, norm=False)
        columns = ops.patches(values, self.channels * area, self.kernel, 1, trained=False)
        columns = ops.layout(columns, n * self.heads, self.head_dim, area)
        mixed = ops.layout(ops.matmul(columns, weights), 1, self.channels * area, *self.input_shape[2:])
        mixed = ops.patches(mixed, self.channels, self.kernel, 1, trained=False, groups=self.channels)
        ops.conv(mixed, self.channels, bias=True, norm=False)


@register
class NeighbourAttention(HeadedMixer):
    """NAT (Hassani et al. 2023, equations 2 to 4): each pixel attends to the k x k pixels nearest to it.

    Near an edge these are the pixels of the last whole neighbourhood. Biases are learned for each offset.
    """

    kind = "mix.neighbour"
    complexity = "4 N d^2 + 2 k^2 N d + 2 k^4 N d"
    examples = ("mix.neighbour(c=8,heads=2,k=3)@4", "mix.neighbour(c=16,heads=4,k=3)@5")

    kernel: int = param("k")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.kernel % 2 == 1 and self.kernel <= self.resolution
        self._require(fits, f"neighbourhoods need an odd k of at most {self.resolution}")

    @override
    def add_ops(self, ops: OpList) -> None:
        n, area = self.tokens, self.kernel**2
        query, key, value = (ops.conv(ops.input, self.channels, bias=True, norm=False) for _ in range(3))
        q = ops.elementwise(ops.layout(query, n * self.heads, 1, self.head_dim))
        scores = ops.matmul(q, self._neighbourhoods(ops, key))
        scores = ops.softmax(ops.elementwise(scores, params=(2 * self.kernel - 1) ** 2 * self.heads))
        values = self._neighbourhoods(ops, value)
        mixed = ops.matmul(scores, values.view(n * self.heads, area, self.head_dim))
        self._to_map(ops, ops.linear(mixed.view(1, n, self.channels), self.channels))

    def _neighbourhoods(self, ops: OpList, x: Activation) -> Activation:
        """Append the unfolding of each pixel's neighbourhood: (N * heads, head_dim, k^2)."""
        area, side = self.kernel**2, self.resolution
        columns = ops.patches(x, self.channels * area, self.kernel, 1, trained=False)
        for _ in range(2):
            edge = columns.view(1, self.channels * area, side, self.kernel // 2)
            columns = ops.concat(edge, columns.view(*edge.shape[:3], side - 2 * edge.shape[3]), edge, axis=3)
        return ops.layout(columns, self.tokens * self.heads, self.head_dim, area)
