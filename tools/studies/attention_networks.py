"""Networks of FFN blocks and attention blocks in turn, as spaces that can be trained.

`study-heads-full` and `study-heads-split` have equal parameters and differ in what an attention head sees: all
channels (MHSA), or a split and the output of the head before it (CGA). `study-share` varies the number of attention
blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from luts.format.errors import UsageError
from search.blocks import BlockSpec, count, parse_key
from search.spaces import Arch, Stage, Value, get_space, register_space, register_stage
from search.spaces.plugins import load_plugin
from search.spaces.space import Space
from search.supernet.recipe.recipe import Augmentation, Recipe
from tools.studies.shared import Options
from tools.studies.trainings import Training

load_plugin("tools.studies.efficientvit_ablations")
load_plugin(__name__)  # worker processes import what is loaded, and then know the spaces below

HEADS = {"full": "evit.mha", "split": "evit.cga"}
"""Kind of attention block by what a head sees."""
NAMES = {"full": "MHSA, all channels", "split": "CGA, a split each"}

TOLERANCE = 0.02
"""Largest relative difference of parameters between networks that count as equally large."""
ATTENTION_HEADS, QK_DIM = 4, 8
DEPTH, QUICK_DEPTH = 4, 2
BLOCKS = 8
"""Blocks of a network of `study-share`, attention and FFN together."""
WIDTHS, COUNTS = tuple(range(40, 97, 8)), (0, 2, 3, 4, 6, 8)
QUICK_WIDTHS, QUICK_COUNTS = (8, 16), (0, 4)


def attention(sees: str, channels: int, resolution: int, qk_dim: int = QK_DIM) -> BlockSpec:
    """Return attention over all pixels of a map with 3x3 depthwise query convolutions; v has c / heads channels."""
    value_dim = channels // ATTENTION_HEADS
    numbers = (
        f"c={channels},heads={ATTENTION_HEADS},qk={qk_dim},v={value_dim},kernels={'3' * ATTENTION_HEADS}"
    )
    return parse_key(f"{HEADS[sees]}({numbers},window={resolution})@{resolution}")


def ffn(channels: int, hidden: int, resolution: int) -> BlockSpec:
    """Return a depthwise 3x3 with a feed-forward network of `hidden` channels (a ratio of four decimals)."""
    ratio = math.ceil(hidden / channels * 1e4) / 1e4
    return parse_key(f"evit.ffn(c={channels},ratio={ratio:g})@{resolution}")


def ffn_with(params: int, channels: int, resolution: int) -> BlockSpec:
    """Return the FFN block whose parameters are nearest to `params`.

    Raises:
        UsageError: its depthwise convolution alone has more.
    """
    one, two = (ffn(channels, hidden, resolution).params() for hidden in (1, 2))
    hidden = 1 + round((params - one) / (two - one))
    if hidden < 1:
        raise UsageError(
            f"no FFN of {channels} channels has {params} parameters or fewer; use fewer channels",
            code="unequal_networks",
        )
    return ffn(channels, hidden, resolution)


def spread_evenly(chosen: int, places: int) -> tuple[bool, ...]:
    """Return which of the places in a row are chosen so that the chosen ones are evenly apart."""
    indices = {(2 * i + 1) * places // (2 * chosen) for i in range(chosen)}
    return tuple(place in indices for place in range(places))


def check_equal_size(networks: Sequence[Sequence[BlockSpec]]) -> None:
    """Raise UsageError if parameters of the networks differ by more than the tolerance."""
    sizes = [count(blocks)[0] for blocks in networks]
    if max(sizes) > (1 + TOLERANCE) * min(sizes):
        raise UsageError(
            f"networks of {min(sizes):,} to {max(sizes):,} parameters are not equally large; change their widths",
            code="unequal_networks",
        )


def _stem(width: int, channels: int, resolution: int) -> list[BlockSpec]:
    """Return two blocks of stride 2 each, from an image to a map of `width` channels."""
    return [
        parse_key(f"conv(in={channels},out={width // 2},k=3,s=2)@{resolution}"),
        parse_key(f"mbconv(in={width // 2},out={width},k=3,e=2,s=2)@{resolution // 2}"),
    ]


@register_stage("study.heads")
def heads_stage(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return a stem, `depth` times FFN and attention, and an FFN; equal parameters whatever a head sees."""
    width, depth, side = int(v["width"]), int(v["depth"]), resolution // 4
    full = attention("full", width, side)
    attend = attention("split", width, side) if v["split"] else full
    spare = depth * (full.params() - attend.params())
    feed = ffn_with(ffn(width, 2 * width, side).params() + spare // (depth + 1), width, side)
    return [*_stem(width, channels, resolution), *[feed, attend] * depth, feed]


def _share_slots(v: dict[str, Value]) -> list[str]:
    chosen = spread_evenly(int(v["attention"]), BLOCKS)
    return ["conv", "mbconv", *(f"{'attention' if here else 'ffn'}{i}" for i, here in enumerate(chosen))]


@register_stage("study.share", _share_slots)
def share_stage(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return a stem and `BLOCKS` blocks, of which `attention` are attention that sees all channels."""
    width, side = int(v["width"]), resolution // 4
    attend, feed = attention("full", width, side), ffn(width, 2 * width, side)
    chosen = spread_evenly(int(v["attention"]), BLOCKS)
    return [*_stem(width, channels, resolution), *(attend if here else feed for here in chosen)]


def _space(name: str, stage: Stage) -> Space:
    return register_space(
        Space(
            name=name,
            stages=(stage,),
            stage_counts=(1,),
            resolutions=(32,),
            heads=("bnfc",),
            default_resolution=32,
            default_classes=10,
        )
    )


for _split, _sees in enumerate(HEADS):
    _choices = (("width", (16, 48)), ("depth", (QUICK_DEPTH, DEPTH)))
    _space(f"study-heads-{_sees}", Stage("body", "study.heads", (("stride", 4), ("split", _split)), _choices))
_space(
    "study-share",
    Stage(
        "body", "study.share", (("stride", 4),), (("width", (*QUICK_WIDTHS, *WIDTHS)), ("attention", COUNTS))
    ),
)


def heads_network(sees: str, *, quick: bool) -> Arch:
    """Return the network whose attention heads see `full` or `split`."""
    values = (16, QUICK_DEPTH) if quick else (48, DEPTH)
    return Arch(get_space(f"study-heads-{sees}"), 32, "bnfc", 10, (values,))


def share_network(attention_blocks: int, width: int) -> Arch:
    """Return the network of `study-share` with so many attention blocks."""
    return Arch(get_space("study-share"), 32, "bnfc", 10, ((width, attention_blocks),))


def training_of(arch: Arch, options: Options, seed: int) -> Training:
    """Return the training of one network on its own."""
    recipe = Recipe(
        name="attention",
        arch=arch.to_json(),
        epochs=options.epochs,
        batch_size=128,
        learning_rate=4e-3,
        warmup_epochs=0.3,
        augmentation=Augmentation(crop="none"),
        channels_last=True,
        seed=seed,
    )
    return Training(arch.space, recipe, options.images)
