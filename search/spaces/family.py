"""How a stage's choice becomes blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from luts.errors import UsageError
from search.blocks import (
    BlockSpec,
    Conv,
    ConvHead,
    FcHead,
    MBConv,
    MbPoolHead,
    MobileViTLayer,
    MobileViTShell,
)
from search.blocks.efficientvit import BnFcHead, FfnBlock, OverlapStem, PatchMerging
from search.blocks.efficientvit_attention import CascadedGroupAttention

if TYPE_CHECKING:
    from search.spaces.space import Stage, Value

CONV_HEAD_EXPANSION = 4
"""Width of MobileViT's last 1x1 convolution over its input, in all three networks."""

STEM_STRIDE = 16
"""Of EfficientViT's stem; its later stages halve the map."""

Expand = Callable[[dict[str, "Value"], int, int], list[BlockSpec]]


def _conv(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    return [Conv(resolution, channels, int(v["width"]), int(v["kernel"]), int(v["stride"]))]


def _mbconvs(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """`depth` inverted residuals; only the first changes width and resolution."""
    width, kernel, expansion = int(v["width"]), int(v["kernel"]), int(v["expansion"])
    first: BlockSpec = MBConv(resolution, channels, width, kernel, expansion, int(v["stride"]))
    rest: BlockSpec = MBConv(first.out_resolution, width, width, kernel, expansion, 1)
    return [first] + [rest] * (int(v["depth"]) - 1)


def _autovit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """A transformer stage of AutoViT: the dimension follows from the width, heads have channels of their own."""
    dim = int(v["dim_scale"] * int(v["width"]) + v["dim_offset"])
    return _transformers(v, channels, resolution, dim, int(v["head_dim"]))


def _mobilevit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """A transformer stage of MobileViT: the dimension is chosen, its heads share it."""
    dim = int(v["dim"])
    return _transformers(v, channels, resolution, dim, dim // int(v["heads"]))


def _transformers(
    v: dict[str, Value], channels: int, resolution: int, dim: int, head_dim: int
) -> list[BlockSpec]:
    """An MBConv that changes width and resolution, then a MobileViT block with `depth` layers."""
    width, patch = int(v["width"]), int(v["patch"])
    down = MBConv(resolution, channels, width, int(v["kernel"]), int(v["expansion"]), int(v["stride"]))
    side = down.out_resolution
    layer = MobileViTLayer(side, dim, int(v["heads"]), head_dim, float(v["mlp_ratio"]), patch)
    return [down, MobileViTShell(side, width, dim, patch)] + [layer] * int(v["depth"])


@functools.lru_cache(maxsize=1 << 14)
def _made(kind: Callable[..., BlockSpec], *values: Value) -> BlockSpec:
    """One block for equal values: the same few stand in thousands of choices, and each keeps its key."""
    return kind(*values)


def _efficientvit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """The first stage's stem, or patch merging between two FFN blocks; then `depth` sandwiches."""
    width, ratio, heads, ffns = int(v["width"]), float(v["ratio"]), int(v["heads"]), int(v["ffns"])
    down: list[BlockSpec]
    if int(v["stride"]) == STEM_STRIDE:
        down = [_made(OverlapStem, resolution, channels, width)]
        side = down[-1].out_resolution
    else:
        merge = _made(PatchMerging, resolution, channels, width)
        side = merge.out_resolution
        down = [_made(FfnBlock, resolution, channels, ratio), merge, _made(FfnBlock, side, width, ratio)]
    attention = _made(
        CascadedGroupAttention,
        side,
        width,
        heads,
        int(v["qk"]),
        int(v["value"] * (-(-width // heads))),
        int(str(v["kernels"])[:heads]),
        int(v["window"]),
    )
    ffn = [_made(FfnBlock, side, width, ratio)] * ffns
    return down + [*ffn, attention, *ffn] * int(v["depth"])


def _efficientvit_slots(v: dict[str, Value]) -> list[str]:
    """By role: the FFNs on either side of an attention are counted from it outwards."""
    ffns, first = int(v["ffns"]), int(v["stride"]) == STEM_STRIDE
    names = ["stem"] if first else ["before", "merge", "after"]
    for sandwich in range(int(v["depth"])):
        names += [f"{sandwich}before{index}" for index in reversed(range(ffns))]
        names += [f"{sandwich}attention"]
        names += [f"{sandwich}after{index}" for index in range(ffns)]
    return names


def _conv_head(resolution: int, channels: int, classes: int) -> BlockSpec:
    return ConvHead(resolution, channels, classes, CONV_HEAD_EXPANSION * channels)


_STAGES: dict[str, Expand] = {
    "conv": _conv,
    "mbconv": _mbconvs,
    "mvit": _autovit,
    "mobilevit": _mobilevit,
    "efficientvit": _efficientvit,
}
_SLOTS: dict[str, Callable[[dict[str, Value]], list[str]]] = {"efficientvit": _efficientvit_slots}
"""Of kinds whose n-th module isn't always of the same kind."""

_HEADS: dict[str, Callable[[int, int, int], BlockSpec]] = {
    "fc": FcHead,
    "mbpool": MbPoolHead,
    "conv": _conv_head,
    "bnfc": BnFcHead,
}


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Blocks of one stage, given its input's channels and side in pixels."""
    named = dict(stage.fixed) | dict(zip(stage.names, values, strict=True))
    return tuple(_STAGES[stage.kind](named, channels, resolution))


def stage_slots(stage: Stage, values: tuple[Value, ...], modules: int) -> list[str]:
    """Names of the supernet's slots that a stage's modules take, in order; the first of them do with less depth."""
    if stage.kind in _SLOTS:
        named = dict(stage.fixed) | dict(zip(stage.names, values, strict=True))
        return [f"{stage.name}_{role}" for role in _SLOTS[stage.kind](named)]
    return [f"{stage.name}_{index}" for index in range(modules)]


def expand_head(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """The classifier block."""
    if head not in _HEADS:
        raise UsageError(f"unknown head {head!r}; known: {', '.join(_HEADS)}")
    return _HEADS[head](resolution, channels, classes)
