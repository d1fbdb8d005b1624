"""The space of NAS-Bench-Macro: 6,561 networks with published accuracy on CIFAR-10.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021: a chain of 8
positions, each the identity or one of two inverted residuals. Search results can be compared with the true
optimum.
"""

from __future__ import annotations

from search.blocks import BlockSpec
from search.blocks.mobilenet import LinearConv, ReluConv, ReluConvHead, ReluMBConv
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_head, register_stage

OPERATIONS = ((), (3, 3), (6, 5))
"""For each digit of the benchmark's keys nothing, or expansion and kernel of an inverted residual."""

_STEM, _WIDTHS, _HEAD = 32, (64, 64, 128, 128, 128, 256, 256, 256), 1280


@register_stage("relu-conv")
def relu_convolution(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return one convolution with ReLU, the stem."""
    return [ReluConv(resolution, channels, int(v["width"]), int(v["kernel"]), int(v["stride"]))]


def _slots(v: dict[str, Value]) -> list[str]:
    """Return the slot; an identity that changes the shape has weights of its own."""
    return ["mbconv" if v["op"] else "identity"]


@register_stage("macro-place", _slots)
def operation(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return the operation of a position; none if the identity keeps the shape."""
    width, stride = int(v["width"]), int(v["stride"])
    expansion_and_kernel = OPERATIONS[int(v["op"])]
    if expansion_and_kernel:
        expansion, kernel = expansion_and_kernel
        return [ReluMBConv(resolution, channels, width, kernel, expansion, stride)]
    if stride == 1 and channels == width:
        return []
    return [LinearConv(resolution, channels, width, 1, stride)]


register_head(
    "relu-conv", lambda resolution, channels, classes: ReluConvHead(resolution, channels, classes, _HEAD)
)


def _place(index: int) -> Stage:
    halves = index == 0 or _WIDTHS[index] > _WIDTHS[index - 1]
    fixed = (("stride", 2 if halves else 1),)
    return Stage(f"place{index}", "macro-place", fixed, (("width", (_WIDTHS[index],)), ("op", (0, 1, 2))))


MACRO = Space(
    name="nasbench-macro",
    stages=(
        Stage("stem", "relu-conv", (("stride", 1), ("kernel", 3)), (("width", (_STEM,)),)),
        *map(_place, range(len(_WIDTHS))),
    ),
    stage_counts=(1 + len(_WIDTHS),),
    resolutions=(32,),
    heads=("relu-conv",),
    default_resolution=32,
    default_classes=10,
)
SPACES = (MACRO,)
PAPER_ARCHS: dict[str, Arch] = {}


def key_of(arch: Arch) -> str:
    """Return the benchmark's key of a network: eight digits of 0, 1 and 2, one for each position."""
    return "".join(str(values[1]) for values in arch.stages[1:])
