"""AutoViT's Table 1 with nothing added, and one space that holds all three of its columns (section 5.2).

`autovit-xxs` and its sisters have what the paper's text and Table 3 ask for beyond Table 1: kernels, a fifth
stage, a second classifier, other resolutions (docs/autovit.md).
"""

from __future__ import annotations

from dataclasses import replace

from search.blocks import BlockSpec
from search.spaces.arch import Arch
from search.spaces.autovit import XS, XXS, S, transformers
from search.spaces.family import register_stage
from search.spaces.layout import Stage, Value
from search.spaces.space import Space

RULES = ((2, 1.0, 0), (4, 1.5, -16), (4, 1.5, 0))
"""Expansion of the first MBConv, and a and b of the dimension a C + b of C channels: as in XXS, in S and in XS.

The last holds the weights of the others."""

_PRINTED_STAGES = 8
"""Conv, three MBConv and four transformer stages."""


@register_stage("mvit-joint")
def transformers_by_rule(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """A transformer stage whose expansion and dimension are those of one of the three spaces."""
    expansion, scale, offset = RULES[int(v["rule"])]
    dim = int(scale * int(v["width"]) + offset)
    return transformers(v | {"expansion": expansion}, channels, resolution, dim, int(v["head_dim"]))


def _as_printed(space: Space) -> Space:
    """What Table 1 has of a space: no kernels, four transformer stages at most, MBPool; at 256 px."""
    stages = tuple(
        replace(stage, choices=tuple((name, (3,) if name == "kernel" else v) for name, v in stage.choices))
        for stage in space.stages[:_PRINTED_STAGES]
    )
    return replace(
        space,
        name=f"{space.name}-table1",
        stages=stages,
        stage_counts=(_PRINTED_STAGES - 1, _PRINTED_STAGES),
        resolutions=(256,),
        heads=("mbpool",),
    )


def _joint(name: str, spaces: tuple[Space, ...]) -> Space:
    """Every value of a choice that one of the spaces has; transformer stages choose their rule too."""
    first = spaces[0]
    stages = []
    for together in zip(*(space.stages for space in spaces), strict=True):
        choices = [
            (name, tuple(sorted({value for stage in together for value in dict(stage.choices)[name]})))
            for name in together[0].names
        ]
        kind, fixed = together[0].kind, together[0].fixed
        if kind == "mvit":
            kind = "mvit-joint"
            fixed = tuple(item for item in fixed if item[0] in ("stride", "head_dim", "patch"))
            choices.append(("rule", tuple(range(len(RULES)))))
        stages.append(Stage(together[0].name, kind, fixed, tuple(choices)))
    return replace(first, name=name, stages=tuple(stages))


_PRINTED = tuple(map(_as_printed, (XXS, XS, S)))
SPACES = (*_PRINTED, _joint("autovit-joint", _PRINTED))
PAPER_ARCHS: dict[str, Arch] = {}
