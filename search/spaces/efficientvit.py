"""EfficientViT (Liu et al. 2023): M0 to M5 of table 1, and spaces around them.

The paper does not search its choices together and names that as future work: layout, FFNs on either side of an
attention, heads, and the widths of query, key and value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from search.blocks import BlockSpec
from search.blocks.efficientvit import BnFcHead, CascadedGroupAttention, FfnBlock, OverlapStem, PatchMerging
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_head, register_stage

_PAPER_QK = 16
"""Channels of every query and key in M0 to M5 (section 3.3)."""

STEM_STRIDE = 16
"""Stride of the stem; later stages halve the map."""


@functools.lru_cache(maxsize=1 << 14)
def _cached_block(kind: Callable[..., BlockSpec], *values: Value) -> BlockSpec:
    """Return the same object for equal values: the same few blocks are part of thousands of architectures."""
    return kind(*values)


def sandwich_slots(v: dict[str, Value]) -> list[str]:
    """Name slots by role: FFNs on either side of an attention are numbered from it outwards."""
    ffns, first = int(v["ffns"]), int(v["stride"]) == STEM_STRIDE
    names = ["stem"] if first else ["before", "merge", "after"]
    for sandwich in range(int(v["depth"])):
        names += [f"{sandwich}before{index}" for index in reversed(range(ffns))]
        names += [f"{sandwich}attention"]
        names += [f"{sandwich}after{index}" for index in range(ffns)]
    return names


@register_stage("efficientvit", slots=sandwich_slots)
def sandwiches(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return the first stage's stem, or patch merging between two FFN blocks; then `depth` sandwiches."""
    width, ratio, heads, ffns = int(v["width"]), float(v["ratio"]), int(v["heads"]), int(v["ffns"])
    down: list[BlockSpec]
    if int(v["stride"]) == STEM_STRIDE:
        down = [_cached_block(OverlapStem, resolution, channels, width)]
        side = down[-1].out_resolution
    else:
        merge = _cached_block(PatchMerging, resolution, channels, width)
        side = merge.out_resolution
        down = [
            _cached_block(FfnBlock, resolution, channels, ratio),
            merge,
            _cached_block(FfnBlock, side, width, ratio),
        ]
    attention = _cached_block(
        CascadedGroupAttention,
        side,
        width,
        heads,
        int(v["qk"]),
        int(v["value"] * (-(-width // heads))),
        int(str(v["kernels"])[:heads]),
        int(v["window"]),
    )
    ffn = [_cached_block(FfnBlock, side, width, ratio)] * ffns
    return down + [*ffn, attention, *ffn] * int(v["depth"])


register_head("bnfc", BnFcHead)


def _stage(
    index: int,
    stride: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    *,
    heads: tuple[int, ...] = (2, 3, 4),
    kernels: tuple[int, ...] = (5555, 7533),
) -> Stage:
    """Return a stage of `depth` sandwiches: `ffns` FFN blocks, an attention, `ffns` FFN blocks.

    `value` is the value's width divided by that of a head's split, `kernels` has one digit a head.
    """
    choices = (
        ("width", widths),
        ("depth", depths),
        ("ffns", (1, 2)),
        ("heads", heads),
        ("qk", (8, _PAPER_QK)),
        ("value", (0.5, 1)),
        ("kernels", kernels),
    )
    return Stage(f"stage{index}", "efficientvit", (("stride", stride), ("ratio", 2), ("window", 7)), choices)


CGA = Space(
    name="efficientvit-cga",
    stages=(
        _stage(1, 16, (64, 128, 192), (1, 2)),
        _stage(2, 2, (128, 144, 192, 240, 256, 288), (1, 2, 3)),
        _stage(3, 2, (192, 224, 320, 384), (2, 3, 4)),
    ),
    stage_counts=(3,),
    resolutions=(192, 224, 256),
    heads=("bnfc",),
    default_resolution=224,
    default_classes=1000,
)

NANO = Space(
    name="efficientvit-nano",
    stages=(
        _stage(1, 16, (32, 48), (1, 2), heads=(1, 2), kernels=(3333, 5533)),
        _stage(2, 2, (48, 64), (1, 2), heads=(2, 3), kernels=(3333, 5533)),
    ),
    stage_counts=(2,),
    resolutions=(64,),
    heads=("bnfc",),
    default_resolution=64,
    default_classes=10,
)

SPACES = (CGA, NANO)


def _published(
    widths: tuple[int, int, int],
    heads: tuple[int, int, int],
    depths: tuple[int, int, int] = (1, 2, 3),
    kernels: int = 7533,
) -> Arch:
    """Return a network of table 1: one FFN on either side, values as wide as the splits, 224 px."""
    rows: list[tuple[Value, ...]] = [
        (width, depth, 1, head, _PAPER_QK, 1, kernels)
        for width, depth, head in zip(widths, depths, heads, strict=True)
    ]
    return Arch(CGA, 224, "bnfc", 1000, tuple(rows))


PAPER_ARCHS = {
    "efficientvit-m0": _published((64, 128, 192), (4, 4, 4), kernels=5555),
    "efficientvit-m1": _published((128, 144, 192), (2, 3, 3)),
    "efficientvit-m2": _published((128, 192, 224), (4, 3, 2)),
    "efficientvit-m3": _published((128, 240, 320), (4, 3, 4), kernels=5555),
    "efficientvit-m4": _published((128, 256, 384), (4, 4, 4)),
    "efficientvit-m5": _published((192, 288, 384), (3, 3, 4), (1, 3, 4)),
}
