"""The operations of a block in order of execution, and the costs that follow from them.

A block lists its operations once (`BlockSpec.ops`). Its parameters, multiply-accumulates, activation traffic
and peak activation memory are sums and maxima over that list. Kinds, shapes, kernels, groups and weights are
listed too, for latency predictions.

Conventions, for batch 1:
    - BN and the activation after a convolution or linear layer run in place; they are not operations.
    - Traffic counts elements read and written by each operation, weights left out. An operation that runtimes
      fuse into its neighbour has a traffic of 0; `traffic` overrides the count where only a part is read or
      written.
    - Memory counts buffers: a view shares the buffer of its source. Inputs, outputs and every tensor between
      the operation that writes it and the last that reads it are live. Weights and scratch memory are left
      out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

OpKind = Literal[
    "conv", "linear", "matmul", "norm", "softmax", "elementwise", "pool", "resize", "concat", "copy", "layout"
]

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Activation:
    """A tensor that an operation reads or writes.

    Attributes:
        buffer: Number of the memory buffer that holds it; views and results in place share one.
        shape: Maps are (batch, channels, height, width), tokens (batch, tokens, channels).
    """

    buffer: int
    shape: Shape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def view(self, *shape: int) -> Activation:
        """Return the same memory, or the first part of it, under another shape."""
        return Activation(self.buffer, shape)


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        kind: What it computes.
        inputs: Activations that it reads; both terms of a residual addition are listed.
        output: Activation that it writes.
        params: Trained parameters, with BN's scale and shift where BN follows.
        macs: Multiply-accumulates.
        traffic: Activation elements read and written.
        kernel: Side of a convolution's or pool's window in pixels.
        stride: Stride in pixels.
        groups: Groups of a convolution.
        dilation: Dilation of a convolution.
    """

    kind: OpKind
    inputs: tuple[Activation, ...]
    output: Activation
    params: int = 0
    macs: int = 0
    traffic: int = 0
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dilation: int = 1

    @property
    def depthwise(self) -> bool:
        """Whether this is a convolution with one group for each input channel."""
        return self.kind == "conv" and self.groups == self.inputs[0].shape[1] > 1

    @property
    def has_weights(self) -> bool:
        """Whether this is a convolution or linear layer with trained weights."""
        return self.kind in ("conv", "linear") and self.params > 0


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of a block or network for one forward pass at batch 1.

    Attributes:
        params: Trained parameters.
        conv_linear_macs: Multiply-accumulates of convolutions and linear layers with trained weights.
        total_macs: All multiply-accumulates.
        depthwise_macs: Those of depthwise convolutions.
        mixes_positions: Whether any operation combines positions, as attention and convolutions above 1x1 do.
        traffic_elements: Activation elements read and written.
        live_elements: Most activation elements in memory at once.
        output_shape: Shape of the output.
    """

    params: int
    conv_linear_macs: int
    total_macs: int
    depthwise_macs: int
    mixes_positions: bool
    traffic_elements: int
    live_elements: int
    output_shape: Shape


class OpList:
    """Operations in order, appended by the methods below; each returns the activation that it writes.

    Attributes:
        input: The block's input.
        output: The block's output: what the last operation writes, unless it is set to a view of it.
    """

    def __init__(self, input_shape: Shape):
        """Start with an input of this shape."""
        self.input = self.output = Activation(0, input_shape)
        self._ops: list[Op] = []
        self._sizes = [self.input.elements]

    def __iter__(self) -> Iterator[Op]:
        """Iterate over the operations in order of execution."""
        return iter(self._ops)

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self._ops)

    def conv(
        self,
        x: Activation,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        *,
        bias: bool = False,
        norm: bool = True,
    ) -> Activation:
        """Convolve a map with padding that keeps its side at stride 1; `norm` adds BN."""
        batch, channels, side, _ = x.shape
        out = (side - 1) // stride + 1
        weights = kernel**2 * channels // groups * outputs
        return self._append(
            Op(
                "conv",
                (x,),
                self._new(batch, outputs, out, out),
                params=weights + (outputs if bias else 0) + (2 * outputs if norm else 0),
                macs=weights * batch * out**2,
                kernel=kernel,
                stride=stride,
                groups=groups,
                dilation=dilation,
            )
        )

    def depthwise(self, x: Activation, kernel: int, stride: int = 1, *, bias: bool = False) -> Activation:
        """Convolve every channel on its own; BN follows."""
        return self.conv(x, x.shape[1], kernel, stride, x.shape[1], bias=bias)

    def linear(
        self,
        x: Activation,
        outputs: int,
        *,
        bias: bool = True,
        trained: bool = True,
        traffic: int | None = None,
    ) -> Activation:
        """Multiply the last dimension by a matrix of weights, which may be constants."""
        weights = x.shape[-1] * outputs
        params = weights + (outputs if bias else 0) if trained else 0
        out = self._new(*x.shape[:-1], outputs)
        macs = out.elements * x.shape[-1]
        return self._append(Op("linear", (x,), out, params=params, macs=macs), traffic)

    def matmul(self, a: Activation, b: Activation, traffic: int | None = None) -> Activation:
        """Multiply (batch, n, k) by (batch, k, m)."""
        out = self._new(*a.shape[:-1], b.shape[-1])
        return self._append(Op("matmul", (a, b), out, macs=out.elements * a.shape[-1]), traffic)

    def add(self, a: Activation, b: Activation, traffic: int | None = None) -> Activation:
        """Add two activations, the smaller one broadcast."""
        larger = a if a.elements >= b.elements else b
        return self._append(Op("elementwise", (a, b), self._new(*larger.shape)), traffic)

    def mul(
        self, a: Activation, b: Activation, *, in_place: bool = False, traffic: int | None = None
    ) -> Activation:
        """Multiply two activations elementwise, `b` broadcast to `a`."""
        out = a if in_place else self._new(*a.shape)
        moved = 2 * a.elements + b.elements if traffic is None else traffic
        return self._append(Op("elementwise", (a, b), out), moved)

    def elementwise(self, x: Activation, params: int = 0, traffic: int | None = None) -> Activation:
        """Apply a function to each element, or add or multiply weights, into a new buffer."""
        return self._append(Op("elementwise", (x,), self._new(*x.shape), params=params), traffic)

    def in_place(self, x: Activation, params: int = 0, traffic: int = 0) -> Activation:
        """Apply a function to each element in place; by default fused into the operation before."""
        return self._append(Op("elementwise", (x,), x, params=params), traffic)

    def norm(self, x: Activation, axis: int = -1) -> Activation:
        """Normalise over one axis (LayerNorm), with a scale and a shift for each of its elements."""
        return self._append(Op("norm", (x,), self._new(*x.shape), params=2 * x.shape[axis]))

    def softmax(self, x: Activation, traffic: int | None = None) -> Activation:
        """Apply softmax."""
        return self._append(Op("softmax", (x,), self._new(*x.shape)), traffic)

    def mean(self, x: Activation) -> Activation:
        """Average a map over its pixels: (batch, channels)."""
        return self._append(Op("pool", (x,), self._new(*x.shape[:2]), kernel=x.shape[2]))

    def pool(self, x: Activation, kernel: int, stride: int) -> Activation:
        """Pool a map over windows, padded as a convolution is."""
        batch, channels, side, _ = x.shape
        out = (side - 1) // stride + 1
        return self._append(
            Op("pool", (x,), self._new(batch, channels, out, out), kernel=kernel, stride=stride)
        )

    def resize(self, x: Activation, side: int) -> Activation:
        """Interpolate a map to another side."""
        return self._append(Op("resize", (x,), self._new(*x.shape[:2], side, side)))

    def with_class_token(self, x: Activation, traffic: int | None = None) -> Activation:
        """Prepend a trained class token to (1, n, d)."""
        _, n, d = x.shape
        return self._append(Op("concat", (x,), self._new(1, n + 1, d), params=d), traffic)

    def concat(self, *inputs: Activation, axis: int = 1) -> Activation:
        """Concatenate along one axis."""
        first = inputs[0].shape
        joined = sum(x.shape[axis] for x in inputs)
        return self._append(Op("concat", inputs, self._new(*first[:axis], joined, *first[axis + 1 :])))

    def copy(self, x: Activation, *shape: int, traffic: int | None = None) -> Activation:
        """Copy to a new buffer, under another shape if one is given."""
        return self._append(Op("copy", (x,), self._new(*(shape or x.shape))), traffic)

    def layout(self, x: Activation, *shape: int, traffic: int | None = None) -> Activation:
        """Permute or slice: runtimes move every element of the output, but planned memory reuses the buffer."""
        out = x.view(*(shape or x.shape))
        return self._append(Op("layout", (x,), out), 2 * out.elements if traffic is None else traffic)

    def patches(
        self,
        x: Activation,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        trained: bool = True,
        groups: int | None = None,
    ) -> Activation:
        """Convolve k x k patches with padding (k - stride + 1) // 2 and a bias.

        Weights that are not trained pick each pixel of a patch: a depthwise convolution with k^2 outputs a
        channel, without a bias; or, with other `groups`, they add the pixels up.
        """
        batch, channels, side, _ = x.shape
        out = (side + 2 * ((kernel - stride + 1) // 2) - kernel) // stride + 1
        groups = groups or (1 if trained else channels)
        weights = kernel**2 * channels // groups * outputs
        params = weights + outputs if trained else 0
        output = self._new(batch, outputs, out, out)
        return self._append(
            Op("conv", (x,), output, params, weights * out**2, kernel=kernel, stride=stride, groups=groups)
        )

    @cached_property
    def costs(self) -> Costs:
        """Sums and maxima over the operations; append none afterwards."""
        return Costs(
            params=sum(op.params for op in self),
            conv_linear_macs=sum(op.macs for op in self if op.has_weights),
            total_macs=sum(op.macs for op in self),
            depthwise_macs=sum(op.macs for op in self if op.depthwise),
            mixes_positions=any(op.kind in ("matmul", "softmax") or op.kernel > 1 for op in self),
            traffic_elements=sum(op.traffic for op in self),
            live_elements=self.live_elements(),
            output_shape=self.output.shape,
        )

    def live_elements(self, *, keep_input: bool = False) -> int:
        """Return the most elements live during one operation; with `keep_input` the input is live to the end."""
        last_read = {x.buffer: index for index, op in enumerate(self) for x in op.inputs}
        if keep_input:
            last_read[self.input.buffer] = len(self)
        live, peak = {self.input.buffer}, self.input.elements
        for index, op in enumerate(self):
            live.add(op.output.buffer)
            peak = max(peak, sum(self._sizes[buffer] for buffer in live))
            live = {buffer for buffer in live if last_read.get(buffer, -1) > index}
        return peak

    def _new(self, *shape: int) -> Activation:
        activation = Activation(len(self._sizes), shape)
        self._sizes.append(activation.elements)
        return activation

    def _append(self, op: Op, traffic: int | None = None) -> Activation:
        if traffic is None:
            traffic = sum(x.elements for x in op.inputs) + op.output.elements
        self._ops.append(dataclasses.replace(op, traffic=traffic))
        self.output = op.output
        return op.output


def attention(
    ops: OpList, q: Activation, k: Activation, v: Activation, bias: int | None = None
) -> Activation:
    """Append softmax(q k^T + bias) v: (batch x heads, N, value_dim).

    Args:
        ops: List to append to.
        q: (batch x heads, N, head_dim), already scaled.
        k: (batch x heads, M, head_dim).
        v: (batch x heads, M, value_dim).
        bias: Trained parameters of the scores' bias; None if no bias is added.
    """
    scores = ops.matmul(q, k.view(k.shape[0], k.shape[2], k.shape[1]))
    if bias is not None:
        scores = ops.elementwise(scores, bias)
    return ops.matmul(ops.softmax(scores), v)
