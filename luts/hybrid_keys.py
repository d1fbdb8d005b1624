"""Block keys of nn-Meter's hybrid CNN-transformer space, and what the blocks cost on paper.

    firstconv_{side}_{in}_{out}_{stride}_{kernel}              3x3 convolution, BN, hard-swish
    conv_{side}_{in}_{out}_{expansion}_{stride}_{act}_{kernel}_{se|nose}
                                                               MBConv; squeeze-and-excitation or not
    transds_{side}_{in}_{out}_{stride}_{expansion}             the same with kernel 3 and squeeze-and-excitation
    transattn_{side}_{dim}_{act}_{v_scale}_ln                  LayerNorm, attention with heads of 16, values of 16 v
    transffn_{side}_{dim}_{ratio}_{act}_ln                     LayerNorm, MLP, residual
    mbpool_{side}_{in}_{out}_{expansion}_{act}                 1x1 convolution, pool, two linear layers

`side` is that of the input map. Source of the shapes: microsoft/nn-Meter, branch dev/hybrid-transformer,
examples/test_transformer/build_lut/build_lut_modules.py and keras_cv_attention_models/levit/levit.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from luts.format.schema import KeyFeatures

BYTES_PER_ELEMENT = 4
HEAD_DIM = 16
CLASSES = 1000

_PATTERNS = {
    "firstconv": r"(\d+)_(\d+)_(\d+)_([12])_(\d+)",
    "conv": r"(\d+)_(\d+)_(\d+)_(\d+)_([12])_hard_swish_(\d+)_(se|nose)",
    "transds": r"(\d+)_(\d+)_(\d+)_([12])_(\d+)",
    "transattn": r"(\d+)_(\d+)_hard_swish_(\d+)_ln",
    "transffn": r"(\d+)_(\d+)_(\d+)_hard_swish_ln",
    "mbpool": r"(\d+)_(\d+)_(\d+)_(\d+)_hard_swish",
}
_KEY = {kind: re.compile(f"{kind}_{rest}") for kind, rest in _PATTERNS.items()}


@dataclass
class _Costs:
    """Multiply-accumulates, those of depthwise convolutions, parameters, activation elements read and written."""

    macs: int = 0
    depthwise_macs: int = 0
    params: int = 0
    elements: int = 0

    def dense(self, inputs: int, outputs: int, places: int, window: int = 1, read: int | None = None) -> None:
        """A convolution over `places` outputs of `window` inputs each, its BN or bias folded."""
        self.macs += inputs * outputs * window * places
        self.params += inputs * outputs * window + outputs
        self.elements += inputs * (places if read is None else read) + outputs * places

    def depthwise(self, channels: int, window: int, read: int, places: int) -> None:
        macs = channels * window * places
        self.macs += macs
        self.depthwise_macs += macs
        self.params += channels * window + channels
        self.elements += channels * (read + places)

    def gate(self, channels: int, squeezed: int, places: int) -> None:
        """Squeeze-and-excitation: pooled, two linear layers, the map multiplied."""
        self.elements += channels * places + channels
        self.dense(channels, squeezed, 1)
        self.dense(squeezed, channels, 1)
        self.elements += 2 * channels * places + channels

    def norm(self, dim: int, tokens: int) -> None:
        self.params += 2 * dim
        self.elements += 2 * dim * tokens

    def features(self, kind: str) -> KeyFeatures:
        return KeyFeatures(
            kind=kind,
            macs=self.macs,
            traffic_bytes=BYTES_PER_ELEMENT * self.elements,
            params=self.params,
            depthwise_macs=self.depthwise_macs,
        )


def features_of_key(key: str) -> KeyFeatures:
    """What a block costs on paper. Raises ValueError for a key of another form."""
    kind = key.partition("_")[0]
    match = _KEY[kind].fullmatch(key) if kind in _KEY and len(key) <= 160 else None
    if match is None:
        raise ValueError(f"{key[:80]!r} is not a key of this space")
    gated = match[0].endswith("_se")
    numbers = [int(part) for part in match.groups() if part.isdecimal()]
    if not all(0 < number <= 1 << 14 for number in numbers):
        raise ValueError(f"{key[:80]!r} has a size out of bounds")
    costs = _Costs()
    if kind == "conv":
        side, inputs, outputs, expansion, stride, kernel = numbers
        _mbconv(costs, side, inputs, outputs, expansion, stride, kernel, gated)
    else:
        _OTHERS[kind](costs, *numbers)
    return costs.features(kind)


def _mbconv(
    costs: _Costs, side: int, inputs: int, outputs: int, expansion: int, stride: int, kernel: int, gated: bool
) -> None:
    """nn-Meter's `dsconv`: where widths differ, the shortcut is a (pooled) 1x1 convolution."""
    wide, read, places = inputs * expansion, side**2, _out(side, stride) ** 2
    if expansion > 1:
        costs.dense(inputs, wide, read)
    costs.depthwise(wide, kernel**2, read, places)
    if gated:
        costs.gate(wide, wide // 4, places)
    costs.dense(wide, outputs, places)
    if inputs != outputs:
        if stride == 2:
            costs.elements += inputs * (read + places)
        costs.dense(inputs, outputs, places)
    if inputs != outputs or stride == 1:
        costs.elements += 3 * outputs * places


def _firstconv(costs: _Costs, side: int, inputs: int, outputs: int, stride: int, kernel: int) -> None:
    costs.dense(inputs, outputs, _out(side, stride) ** 2, kernel**2, side**2)


def _transds(costs: _Costs, side: int, inputs: int, outputs: int, stride: int, expansion: int) -> None:
    _mbconv(costs, side, inputs, outputs, expansion, stride, 3, True)


def _transattn(costs: _Costs, side: int, dim: int, v_scale: int) -> None:
    tokens, heads = side**2, dim // HEAD_DIM
    keys, values = HEAD_DIM * heads, HEAD_DIM * heads * v_scale
    costs.norm(dim, tokens)
    costs.dense(dim, 2 * keys + values, tokens)
    costs.macs += tokens**2 * (keys + values)
    costs.params += tokens * heads
    costs.elements += 6 * heads * tokens**2 + tokens * (2 * keys + 2 * values)
    costs.dense(values, dim, tokens)


def _transffn(costs: _Costs, side: int, dim: int, ratio: int) -> None:
    tokens = side**2
    costs.norm(dim, tokens)
    costs.dense(dim, ratio * dim, tokens)
    costs.dense(ratio * dim, dim, tokens)
    costs.elements += 3 * dim * tokens


def _mbpool(costs: _Costs, side: int, inputs: int, outputs: int, expansion: int) -> None:
    wide = inputs * expansion
    costs.dense(inputs, wide, side**2)
    costs.elements += wide * (side**2 + 1)
    costs.dense(wide, outputs, 1)
    costs.dense(outputs, CLASSES, 1)


_OTHERS: dict[str, Callable[..., None]] = {
    "firstconv": _firstconv,
    "transds": _transds,
    "transattn": _transattn,
    "transffn": _transffn,
    "mbpool": _mbpool,
}


def _out(side: int, stride: int) -> int:
    """Side of a `SAME` convolution's output."""
    return -(-side // stride)
