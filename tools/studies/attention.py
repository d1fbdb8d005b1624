"""EfficientViT's figure 3: accuracy and latency by the fraction of attention blocks.

`study-share` varies the number of attention blocks. `study-heads-full` and `study-heads-split` have equal
parameters and differ in what an attention head sees: all channels (MHSA), or a split and the output of the head
before it (CGA).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.blocks import BlockSpec, parse_key
from search.spaces import Arch, Stage, Value, get_space, register_space, register_stage
from search.spaces.plugins import load_plugin
from search.spaces.published import Published
from search.spaces.space import Space
from search.supernet.recipe.recipe import Augmentation, Recipe
from tools.studies.shared import Options, draw_lines
from tools.studies.trainings import Evaluators, Training, train_all
from tools.tables import Interval, Tables, mean_and_range

load_plugin("tools.studies.efficientvit_ablations")
load_plugin(__name__)  # worker processes import what is loaded, and then know the spaces below

HEADS = {"full": "evit.mha", "split": "evit.cga"}
"""Kind of attention block by what a head sees."""
NAMES = {"full": "MHSA, all channels", "split": "CGA, a split each"}

ATTENTION_HEADS, QK_DIM = 4, 8
BLOCKS = 8
"""Blocks of a network of `study-share`, attention and FFN together."""
WIDTHS, COUNTS = tuple(range(40, 97, 8)), (0, 2, 3, 4, 6, 8)
QUICK_WIDTHS, QUICK_COUNTS = (8, 16), (0, 4)
BATCH = 32
"""Images of a call whose throughput decides the widths."""


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
    """Return the FFN block whose parameters are nearest to `params`."""
    one, two = (ffn(channels, hidden, resolution).params() for hidden in (1, 2))
    return ffn(channels, 1 + round((params - one) / (two - one)), resolution)


def spread_evenly(chosen: int, places: int) -> tuple[bool, ...]:
    """Return which of the places in a row are chosen so that the chosen ones are evenly apart."""
    indices = {(2 * i + 1) * places // (2 * chosen) for i in range(chosen)}
    return tuple(place in indices for place in range(places))


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


def _register(
    name: str, stage: str, fixed: tuple[tuple[str, Value], ...], **choices: tuple[int, ...]
) -> None:
    body = Stage("body", stage, (("stride", 4), *fixed), tuple(choices.items()))
    register_space(
        Space(
            name=name,
            stages=(body,),
            stage_counts=(1,),
            resolutions=(32,),
            heads=("bnfc",),
            default_resolution=32,
            default_classes=10,
        )
    )


for _split, _sees in enumerate(HEADS):
    _register(f"study-heads-{_sees}", "study.heads", (("split", _split),), width=(16, 48), depth=(2, 4))
_register("study-share", "study.share", (), width=(*QUICK_WIDTHS, *WIDTHS), attention=COUNTS)


def heads_network(sees: str, width: int = 48, depth: int = 4) -> Arch:
    """Return the network whose attention heads see `full` or `split`."""
    return Arch(get_space(f"study-heads-{sees}"), 32, "bnfc", 10, ((width, depth),))


def share_network(attention_blocks: int, width: int) -> Arch:
    """Return the network of `study-share` with so many attention blocks."""
    return Arch(get_space("study-share"), 32, "bnfc", 10, ((width, attention_blocks),))


def trained(arch: Arch, options: Options) -> list[Evaluators]:
    """Train a network on its own with every seed."""
    recipe = Recipe(
        name="attention",
        arch=arch.to_json(),
        epochs=options.epochs,
        batch_size=128,
        learning_rate=4e-3,
        warmup_epochs=0.3,
        augmentation=Augmentation(crop="none"),
        channels_last=True,
    )
    seeded = (recipe.model_copy(update={"seed": seed}) for seed in range(options.seeds))
    trainings = [Training(arch.space, each, options.images) for each in seeded]
    train_all(trainings, options)
    return [each.evaluators(options.on, final=True) for each in trainings]


def equally_fast(images_s: Mapping[tuple[int, int], float], width: int) -> dict[int, int]:
    """Return the width, for each number of attention blocks, that is nearest in speed to FFN alone of `width`.

    `images_s` are images per second by number of attention blocks and width.
    """
    chosen = {0: width}
    for blocks in sorted({number for number, _ in images_s} - {0}):
        speeds = {each: speed for (number, each), speed in images_s.items() if number == blocks}
        chosen[blocks] = min(speeds, key=lambda each: abs(math.log(speeds[each] / images_s[0, width])))
    return chosen


def measure_accuracy(options: Options) -> Tables:
    """Measure all widths in one run, choose, train; validation top-1 in percent with the range over seeds."""
    assert options.images
    widths, counts = options.pick((WIDTHS, COUNTS), (QUICK_WIDTHS, QUICK_COUNTS))
    sizes = [(number, width) for number in counts for width in (widths if number else widths[-1:])]
    networks = {f"attention-{number}-width-{width}": share_network(number, width) for number, width in sizes}
    by_name = {row.model: row for row in options.measure(networks, batches=(BATCH,))}
    measured = {size: by_name[name] for size, name in zip(sizes, networks, strict=True)}
    rows = []
    chosen = equally_fast({size: row.images_s[0] for size, row in measured.items()}, widths[-1])
    for attention_blocks, width in chosen.items():
        arch = share_network(attention_blocks, width)
        top1 = [each.top1.accuracies([arch])[0] for each in trained(arch, options)]
        rows.append(
            {
                "attention, %": 100 * attention_blocks / BLOCKS,
                "width": width,
                "parameters": arch.params(),
                "images a second": Interval(*measured[attention_blocks, width].images_s),
                "top-1": mean_and_range(top1, 100),
            }
        )
    with options.draw("attention_accuracy", 620, 340) as (panel,):
        drawn = [row | {"batch": f"batch {BATCH}"} for row in rows]
        draw_lines(panel, drawn, "attention, %", "top-1", "batch")
    return {"Share of attention at equal throughput": rows}


LATENCY_BLOCKS, LATENCY_COUNTS, LATENCY_CHANNELS, LATENCY_RESOLUTION = 10, (0, 2, 4, 6, 8, 10), 192, 224
QK_DIMS = {"full": LATENCY_CHANNELS // ATTENTION_HEADS, "split": 16}
"""Keys of plain attention are as wide as values; EfficientViT's have 16 channels."""


def equally_large(
    sees: str, counts: Sequence[int], channels: int, resolution: int
) -> dict[int, tuple[BlockSpec, ...]]:
    """Return networks by their number of attention blocks, which FFN blocks are as large as."""
    stem = parse_key(f"evit.stem(in=3,out={channels})@{resolution}")
    side = stem.out_resolution
    attend = attention(sees, channels, side, min(QK_DIMS[sees], channels // ATTENTION_HEADS))
    feed = ffn_with(attend.params(), channels, side)
    head = parse_key(f"head.bnfc(in={channels},classes=1000)@{side}")
    return {
        number: (stem, *(attend if here else feed for here in spread_evenly(number, LATENCY_BLOCKS)), head)
        for number in counts
    }


def measure_latency(options: Options) -> Tables:
    """Measure both kinds of attention, each in one interleaved run; `ratio` is to the network without attention."""
    size = options.pick((LATENCY_COUNTS, LATENCY_CHANNELS, LATENCY_RESOLUTION), ((0, LATENCY_BLOCKS), 16, 64))
    rows = []
    for sees in HEADS:
        named = {
            f"{sees}-attention-{number}": Published(f"{sees}-attention-{number}", "this study", blocks)
            for number, blocks in equally_large(sees, *size).items()
        }
        rows += [
            {
                "heads": NAMES[sees],
                "attention, %": 100 * int(row.model.rpartition("-")[2]) / LATENCY_BLOCKS,
                "parameters": row.params,
                "million MACs": (row.all_macs or 0) / 1e6,
                "ms": Interval(row.ms, row.ci_low, row.ci_high),
                "ratio": Interval(row.ratio, row.ratio_low, row.ratio_high),
            }
            for row in options.measure(named)
        ]
    with options.draw("attention_share", 620, 360) as (panel,):
        draw_lines(panel, rows, "attention, %", "ms", "heads")
        panel.set_ylim(bottom=0)
    return {"Share of attention at equal parameters": rows}
