"""ViTs whose layers may reduce the number of tokens: the kind of reduction and the rate are searched.

Each reducing layer keeps a fixed rate of its tokens, so that every network has static shapes and a LUT prices each
layer by its number of tokens. A search over keep rates finds what DiffRate (Chen et al. 2023) learns by gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.embeddings import PatchEmbed
from search.blocks.vit import (
    DroppingLayer,
    IdleLayer,
    MergingLayer,
    MlerpLayer,
    PatchMergerLayer,
    PruningLayer,
    ScoredLayer,
    TopKLayer,
    VitLayer,
    VitPlainLayer,
    VitShell,
)
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_stage

Selecting = Callable[[int, int, int, float, int, int], VitLayer]
"""Resolution, dim, heads, MLP ratio, tokens, tokens to keep besides the class token -> a reducing layer."""


def _merging(kind: type[MergingLayer]) -> Selecting:
    return lambda resolution, dim, heads, ratio, tokens, kept: kind(
        resolution, dim, heads, ratio, tokens, tokens - 1 - kept
    )


REDUCERS: Mapping[str, Sequence[Selecting]] = {
    "none": (),
    "topk": (TopKLayer,),
    "evit": (PruningLayer,),
    "scored": (ScoredLayer,),
    "merger": (PatchMergerLayer,),
    "tome": (_merging(MergingLayer),),
    "idle": (IdleLayer,),
    "fusion": (_merging(DroppingLayer), _merging(MlerpLayer)),
}
"""How tokens are reduced, in the order of the values of `reducer`; `search/blocks/vit.py` has the papers.

Token Fusion has one kind of layer for the first half of the layers, and one for the second.
"""


def _canonical(v: dict[str, Value], choices: Mapping[str, tuple[Value, ...]]) -> dict[str, Value]:
    """Return the values of a network without reduction, or of one with a reduction as they are."""
    if v["reducer"] and v["keep"] < 1:
        return v
    first, every = choices["first"][0], choices["every"][0]
    return v | {"reducer": 0, "keep": choices["keep"][-1], "first": first, "every": every}


@register_stage("vit", canonical=_canonical)
def vit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return patch embedding, class token and `depth` layers; the output is a map of one pixel.

    Layer `first`, counted from 1, and each `every` layers after it reduce the tokens, at most `reductions` times.

    Raises:
        UsageError: a keep rate that leaves no token, or below 0.5 for ToMe, which merges pairs.
    """
    name, keep = list(REDUCERS)[int(v["reducer"])], float(v["keep"])
    if not 0 < keep <= 1:
        raise UsageError(
            f"keep rate {keep:g}; use more than 0, which leaves a token, and at most 1", code="bad_keep_rate"
        )
    dim, patch, first, every = (int(v[key]) for key in ("width", "patch", "first", "every"))
    embed = PatchEmbed(resolution, channels, dim, patch, patch)
    side = embed.out_resolution
    tokens, layers = side**2 + 1, list[BlockSpec]()
    reducing = range(first, first + every * int(v["reductions"]), every)
    depth, kinds = int(v["depth"]), REDUCERS[name] if keep < 1 else ()
    for place in range(1, depth + 1):
        shape = (side, dim, int(v["heads"]), float(v["mlp_ratio"]), tokens)
        kept = math.ceil(keep * (tokens - 1))
        kind = math.ceil(place * len(kinds) / depth) - 1
        layer = kinds[kind](*shape, kept) if kinds and place in reducing else VitPlainLayer(*shape)
        tokens = layer.tokens_out
        layers.append(layer)
    return [embed, VitShell(side, dim), *layers]


def _space(name: str, sizes: tuple[int, int, int, int], **choices: tuple[Value, ...]) -> Space:
    """Return a space for images of a side and patches of a side in pixels, classes, and a number of reductions."""
    resolution, patch, classes, reductions = sizes
    fixed = (("stride", resolution), ("patch", patch), ("reductions", reductions))
    rows = (*choices.items(), ("reducer", tuple(range(len(REDUCERS)))))
    stage = Stage("encoder", "vit", fixed, rows, (("reducer", tuple(REDUCERS)),))
    return Space(name, (stage,), (1,), (resolution,), ("fc",), resolution, classes)


TOKENS = _space(
    "vit-tokens",
    (224, 16, 1000, 3),
    width=(144, 168, 192),
    depth=(10, 11, 12),
    heads=(3, 6),
    mlp_ratio=(3, 4),
    keep=(0.5, 0.7, 1),
    first=(3, 4),
    every=(2, 3),
)
"""Around DeiT-T (Touvron et al. 2021): 196 tokens; EViT reduces at layers 4, 7 and 10."""

TOKENS_CIFAR = _space(
    "vit-tokens-cifar",
    (32, 4, 10, 2),
    width=(48, 64),
    depth=(3, 4, 5),
    heads=(2, 4),
    mlp_ratio=(2,),
    keep=(0.5, 0.7, 1),
    first=(1, 2),
    every=(1, 2),
)

SPACES = (TOKENS, TOKENS_CIFAR)
PAPER_ARCHS = {
    "vit-deit-tiny": Arch(TOKENS, 224, "fc", 1000, ((192, 12, 3, 4, 1, 3, 2, 0),)),
    "vit-evit-deit-tiny": Arch(TOKENS, 224, "fc", 1000, ((192, 12, 3, 4, 0.7, 4, 3, 2),)),
}
"""DeiT-T, and EViT's with a keep rate of 0.7 (Liang et al. 2022, section 4.1)."""
