"""How a stage's choice becomes blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from luts.errors import UsageError
from search.blocks import BlockSpec, Conv, FcHead, MBConv, MbPoolHead, MobileViTLayer, MobileViTShell

if TYPE_CHECKING:
    from search.spaces.space import Stage, Value

Expand = Callable[[dict[str, "Value"], int, int], list[BlockSpec]]


def _conv(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    return [Conv(resolution, channels, int(v["width"]), int(v["kernel"]), int(v["stride"]))]


def _mbconvs(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """`depth` inverted residuals; only the first changes width and resolution."""
    width, kernel, expansion = int(v["width"]), int(v["kernel"]), int(v["expansion"])
    first: BlockSpec = MBConv(resolution, channels, width, kernel, expansion, int(v["stride"]))
    rest: BlockSpec = MBConv(first.out_resolution, width, width, kernel, expansion, 1)
    return [first] + [rest] * (int(v["depth"]) - 1)


def _mobilevit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """An MBConv that changes width and resolution, then a MobileViT block with `depth` layers."""
    width, patch = int(v["width"]), int(v["patch"])
    down = MBConv(resolution, channels, width, int(v["kernel"]), int(v["expansion"]), int(v["stride"]))
    dim = int(v["dim_scale"] * width + v.get("dim_offset", 0))
    shell = MobileViTShell(down.out_resolution, width, dim, patch)
    layer = MobileViTLayer(
        down.out_resolution, dim, int(v["heads"]), int(v["head_dim"]), float(v["mlp_ratio"]), patch
    )
    return [down, shell] + [layer] * int(v["depth"])


_STAGES: dict[str, Expand] = {"conv": _conv, "mbconv": _mbconvs, "mvit": _mobilevit}
_HEADS = {"fc": FcHead, "mbpool": MbPoolHead}


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Blocks of one stage, given its input's channels and side in pixels."""
    named = dict(stage.fixed) | dict(zip(stage.names, values, strict=True))
    return tuple(_STAGES[stage.kind](named, channels, resolution))


def expand_head(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """The classifier block."""
    if head not in _HEADS:
        raise UsageError(f"unknown head {head!r}; known: {', '.join(_HEADS)}")
    return _HEADS[head](resolution, channels, classes)
