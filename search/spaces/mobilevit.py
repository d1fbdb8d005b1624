"""MobileViT (Mehta & Rastegari 2022): its three networks, and a space around them.

AutoViT adopted its blocks. Differences: a stage's transformer dimension is a choice that four heads divide,
depths go up to 5, and the classifier has a 1x1 convolution before the pool.
"""

from __future__ import annotations

from search.blocks import BlockSpec, ConvHead
from search.spaces.autovit import transformers
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_head, register_stage

_EXPANSIONS = (2, 4)

CONV_HEAD_EXPANSION = 4
"""Width of the last 1x1 convolution over its input, in all three networks."""


@register_stage("mobilevit")
def mobilevit_transformers(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return MobileViT's transformer stage: the dimension is a choice that its heads divide."""
    dim = int(v["dim"])
    return transformers(v, channels, resolution, dim, dim // int(v["heads"]), resizes=True)


register_head(
    "conv",
    lambda resolution, channels, classes: ConvHead(
        resolution, channels, classes, CONV_HEAD_EXPANSION * channels
    ),
)


def _transformer(
    index: int, widths: tuple[int, ...], dims: tuple[int, ...], depths: tuple[int, ...]
) -> Stage:
    """Return a stage that halves the map: MBConv, then a MobileViT block with `depth` layers."""
    fixed = (("stride", 2), ("kernel", 3), ("heads", 4), ("mlp_ratio", 2), ("patch", 2))
    choices = (("width", widths), ("dim", dims), ("depth", depths), ("expansion", _EXPANSIONS))
    return Stage(f"transformer{index}", "mobilevit", fixed, choices)


MOBILEVIT = Space(
    name="mobilevit",
    stages=(
        Stage("stem", "conv", (("stride", 2), ("kernel", 3)), (("width", (16,)),)),
        Stage(
            "mbconv1",
            "mbconv",
            (("stride", 1), ("kernel", 3), ("depth", 1)),
            (("width", (16, 32)), ("expansion", _EXPANSIONS)),
        ),
        Stage(
            "mbconv2",
            "mbconv",
            (("stride", 2), ("kernel", 3)),
            (("width", (24, 48, 64)), ("depth", (2, 3, 4)), ("expansion", _EXPANSIONS)),
        ),
        _transformer(1, (48, 64, 96), (64, 96, 144), (1, 2, 3)),
        _transformer(2, (64, 80, 128), (80, 120, 192), (3, 4, 5)),
        _transformer(3, (80, 96, 160), (96, 144, 240), (2, 3, 4)),
    ),
    stage_counts=(6,),
    resolutions=(160, 192, 256, 288, 320),
    heads=("conv",),
    default_resolution=256,
    default_classes=1000,
    former_resolutions=((192, 256, 320),),
)
"""The resolutions are those of the paper's multi-scale sampler. At 160 and 288 px the last map is odd and is
resized to whole patches, as in the paper; AutoViT's block pads it. Earlier LUTs and supernets lack these two
resolutions."""

SPACES = (MOBILEVIT,)


def _published(widths: tuple[int, int, int, int, int], dims: tuple[int, int, int], expansion: int) -> Arch:
    """Return a network of figure 1: depths 2, 4 and 3, 256 px."""
    first, second, *rest = widths
    rows: list[tuple[Value, ...]] = [(16,), (first, expansion), (second, 3, expansion)]
    rows += [(w, d, depth, expansion) for w, d, depth in zip(rest, dims, (2, 4, 3), strict=True)]
    return Arch(MOBILEVIT, 256, "conv", 1000, tuple(rows))


PAPER_ARCHS = {
    "mobilevit-xxs": _published((16, 24, 48, 64, 80), (64, 80, 96), 2),
    "mobilevit-xs": _published((32, 48, 64, 80, 96), (96, 120, 144), 4),
    "mobilevit-s": _published((32, 64, 96, 128, 160), (144, 192, 240), 4),
}
