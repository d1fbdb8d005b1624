"""Small vision transformers for CIFAR-10 whose embedding, positions and attention are searched.

One supernet serves all resolutions: learned tables belong to maps of `base` pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from search.blocks import BlockSpec, Conv
from search.blocks.embeddings import CrossEmbed, OverlapEmbed, PatchEmbed
from search.blocks.positions import LearnedPositions, Peg, Positions, SinusoidPositions
from search.blocks.transformers import CeitStem
from search.spaces.metaformer import register_metaformer
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_stage

BASE = 8
"""Side of the map at the default 32 px."""

EMBEDDINGS: Mapping[str, Callable[[int, int, int], list[BlockSpec]]] = {
    "patch": lambda side, inputs, width: [PatchEmbed(side, inputs, width, 4, 4)],
    "overlap": lambda side, inputs, width: [OverlapEmbed(side, inputs, width, 7, 4)],
    "cross": lambda side, inputs, width: [CrossEmbed(side, inputs, width, 4)],
    "convs": lambda side, inputs, width: [
        first := Conv(side, inputs, width // 2, 3, 2),
        Conv(first.out_resolution, width // 2, width, 3, 2),
    ],
    "ceit": lambda side, inputs, width: [CeitStem(side, inputs, width)],
}
"""Embedding of stride 4 by name: side in pixels and channels of the input, width -> blocks. The stem of two
convolutions is that of Xiao et al. 2021, section 4."""

POSITIONS: Mapping[str, Callable[[int, int], list[Positions]]] = {
    "none": lambda _side, _width: [],
    "learned": lambda side, width: [LearnedPositions(side, width, BASE)],
    "sinusoid": lambda side, width: [SinusoidPositions(side, width)],
    "peg": lambda side, width: [Peg(side, width)],
}
"""Absolute positions by name: side of the map, its channels -> a block or none."""

ATTENTIONS = ("mha", "rope", "fire", "relative")
"""Attention without positions, and by relative positions, as `search.blocks.metaformer.MIXERS` names them."""


def _chosen(v: dict[str, Value]) -> tuple[str, str]:
    """Return the names of the embedding and of the positions."""
    return list(EMBEDDINGS)[int(v["embed"])], list(POSITIONS)[int(v["position"])]


def _slots(v: dict[str, Value]) -> list[str]:
    embed, position = _chosen(v)
    return [embed, *(["convs2"] if embed == "convs" else []), position]


@register_stage("vit-embedding", _slots)
def embedding(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return an embedding of stride 4 and absolute positions, if there are any."""
    embed, position = _chosen(v)
    blocks = EMBEDDINGS[embed](resolution, channels, int(v["width"]))
    return [*blocks, *POSITIONS[position](blocks[-1].out_resolution, int(v["width"]))]


register_metaformer("metaformer-attention", ATTENTIONS)


CIFAR = Space(
    name="vit-cifar",
    stages=(
        Stage(
            "embed",
            "vit-embedding",
            (("stride", 4),),
            (
                ("width", (32, 48)),
                ("embed", tuple(range(len(EMBEDDINGS)))),
                ("position", tuple(range(len(POSITIONS)))),
            ),
            (("embed", tuple(EMBEDDINGS)), ("position", tuple(POSITIONS))),
        ),
        Stage(
            "layers",
            "metaformer-attention",
            (("stride", 1), ("kernel", 1), ("window", 1), ("reduction", 1), ("base", BASE)),
            (
                ("width", (64, 96)),
                ("depth", (2, 3, 4)),
                ("mlp_ratio", (2, 3)),
                ("head_dim", (16, 32)),
                ("mixer", tuple(range(len(ATTENTIONS)))),
            ),
            (("mixer", ATTENTIONS),),
        ),
    ),
    stage_counts=(2,),
    resolutions=(24, 32, 40),
    heads=("bnfc",),
    default_resolution=32,
    default_classes=10,
)
"""Maps of 6, 8 and 10 px; the layers begin with a linear projection from the embedding's width to theirs."""

SPACES = (CIFAR,)
PAPER_ARCHS: dict[str, Arch] = {}
