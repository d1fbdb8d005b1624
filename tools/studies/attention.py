"""EfficientViT's attention: accuracy and latency by its fraction, similarity of heads, importance of channels.

`study-heads-full` and `study-heads-split` have equal parameters and differ in what an attention head sees: all
channels (MHSA), or a split and the output of the head before it (CGA). `study-share` varies the number of attention
blocks.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from luts.format.errors import UsageError
from search.blocks import BlockSpec, count, parse_key
from search.spaces import Arch, Stage, Value, get_space, register_space, register_stage
from search.spaces.plugins import load_plugin
from search.spaces.published import Published
from search.spaces.space import Space
from search.supernet.recipe.recipe import Augmentation, Recipe
from tools.studies.network_analysis import (
    attention_maps,
    head_similarity,
    relative_to_block,
    remaining_fractions,
    taylor_importance,
)
from tools.studies.shared import Options, draw_lines, run_parallel
from tools.studies.trainings import Evaluators, Training, evaluators
from tools.tables import Interval, Tables, mean_and_range

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


THROUGHPUT_BATCH = 32

Size = tuple[int, int]
"""Attention blocks and width."""


def equally_fast(images_s: Mapping[Size, float], width: int) -> dict[int, int]:
    """Return the width, for each number of attention blocks, that is nearest in speed to FFN alone of `width`.

    Args:
        images_s: Images per second by number of attention blocks and width.
        width: Width of the network without attention.
    """
    chosen = {0: width}
    for blocks in sorted({number for number, _ in images_s} - {0}):
        speeds = {each: speed for (number, each), speed in images_s.items() if number == blocks}
        chosen[blocks] = min(speeds, key=lambda each: abs(math.log(speeds[each] / images_s[0, width])))
    return chosen


def measure_accuracy(options: Options) -> Tables:
    """Measure all widths in one run, choose, train; validation top-1 in percent with the range over seeds."""
    assert options.images
    widths, counts = (QUICK_WIDTHS, QUICK_COUNTS) if options.quick else (WIDTHS, COUNTS)
    sizes = [(number, width) for number in counts for width in (widths if number else widths[-1:])]
    networks = {f"attention-{number}-width-{width}": share_network(number, width) for number, width in sizes}
    by_name = {row.model: row for row in options.measure(networks, batches=(THROUGHPUT_BATCH,))}
    measured = {size: by_name[name] for size, name in zip(sizes, networks, strict=True)}
    chosen = equally_fast({size: row.images_s[0] for size, row in measured.items()}, widths[-1])
    rows = []
    for attention_blocks, width in chosen.items():
        arch = share_network(attention_blocks, width)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        top1 = [evaluators(each, options.on, final=True).top1.accuracies([arch])[0] for each in trainings]
        per_s = measured[attention_blocks, width].images_s
        rows.append(
            {
                "attention, %": 100 * attention_blocks / BLOCKS,
                "width": width,
                "parameters": arch.params(),
                "images a second": Interval(*per_s),
                "top-1": mean_and_range(top1, 100),
            }
        )
    with options.draw("attention_accuracy", 620, 340) as (panel,):
        draw_lines(
            panel,
            [row | {"batch": f"batch {THROUGHPUT_BATCH}"} for row in rows],
            "attention, %",
            "top-1",
            "batch",
        )
    return {"Share of attention at equal throughput": rows}


LATENCY_BLOCKS, LATENCY_CHANNELS, LATENCY_RESOLUTION, LATENCY_COUNTS = 10, 192, 224, (0, 2, 4, 6, 8, 10)
QUICK_LATENCY_CHANNELS, QUICK_LATENCY_RESOLUTION, QUICK_LATENCY_COUNTS = 16, 64, (0, 10)
QK_DIMS = {"full": LATENCY_CHANNELS // ATTENTION_HEADS, "split": 16}
"""Keys of plain attention are as wide as values; EfficientViT's have 16 channels."""


def equally_large(
    sees: str, counts: Sequence[int], channels: int, resolution: int
) -> dict[int, tuple[BlockSpec, ...]]:
    """Return equally large networks by their number of attention blocks, which FFN blocks are as large as.

    Raises:
        UsageError: the networks are not equally large.
    """
    stem = parse_key(f"evit.stem(in=3,out={channels})@{resolution}")
    side = stem.out_resolution
    attend = attention(sees, channels, side, min(QK_DIMS[sees], channels // ATTENTION_HEADS))
    feed = ffn_with(attend.params(), channels, side)
    head = parse_key(f"head.bnfc(in={channels},classes=1000)@{side}")
    made = {
        number: (stem, *(attend if here else feed for here in spread_evenly(number, LATENCY_BLOCKS)), head)
        for number in counts
    }
    check_equal_size(list(made.values()))
    return made


def measure_latency(options: Options) -> Tables:
    """Measure both kinds of attention, each in one interleaved run; `ratio` is to the network without attention."""
    size = (
        (QUICK_LATENCY_COUNTS, QUICK_LATENCY_CHANNELS, QUICK_LATENCY_RESOLUTION)
        if options.quick
        else (LATENCY_COUNTS, LATENCY_CHANNELS, LATENCY_RESOLUTION)
    )
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


SIMILARITY_IMAGES, QUICK_SIMILARITY_IMAGES = 512, 16


def compare_heads(options: Options) -> Tables:
    """Train both kinds of networks; compare attention maps on held-out images, with the range over seeds.

    A head is compared with the head of its block that is most similar, by cosine; heads and images are averaged.
    Centred: the uniform map is subtracted first, because maps of positive numbers are never orthogonal.
    """
    networks, rows = [], []
    for sees in HEADS:
        arch = heads_network(sees, quick=options.quick)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        opened = [evaluators(training, options.on, final=True) for training in trainings]
        top1 = [100 * each.top1.accuracies([arch])[0] for each in opened]
        networks.append({"heads": NAMES[sees], "parameters": arch.params(), "top-1": mean_and_range(top1)})
        blocks, similarities = arch.blocks(), []
        for each in opened:
            held_out = each.network_of.held_out[
                : QUICK_SIMILARITY_IMAGES if options.quick else SIMILARITY_IMAGES
            ]
            images, _ = each.network_of.data.batch(held_out, arch.resolution)
            maps = attention_maps(each.network_of.network(arch).eval().cpu(), blocks, images)
            similarities.append(
                [(head_similarity(m.maps), head_similarity(m.maps, centred=True)) for m in maps]
            )
        for number, of_seeds in enumerate(zip(*similarities, strict=True), 1):
            plain, centred = ([pair[i].maximum for pair in of_seeds] for i in (0, 1))
            rows.append(
                {
                    "heads": NAMES[sees],
                    "attention block": number,
                    "similarity": mean_and_range(plain),
                    "centred": mean_and_range(centred),
                }
            )
    with options.draw("head_similarity", 760, 340, 2) as panels:
        for panel, column in zip(panels, ("similarity", "centred"), strict=True):
            draw_lines(panel, rows, "attention block", column, "heads")
    return {"Networks": networks, "Similarity of heads": rows}


IMPORTANCE_IMAGES, QUICK_IMPORTANCE_IMAGES, IMPORTANCE_BATCH = 4096, 64, 64
KEEP = 0.5
"""Fraction of all channels that pruning leaves."""
ROLES = ("q", "k", "v", "ffn")

ByBlock = Mapping[tuple[int, str], float]
"""A figure by block and role."""


def compare_channels(options: Options) -> Tables:
    """Train both kinds of networks; compare channels by the change of the training loss when one is pruned.

    `in its block`: mean of a role's channels over the mean of all channels of the block. `kept`: percent of the
    role's channels that remain when the less important half of all channels is pruned. Range over seeds.
    """
    rows, blocks = [], []
    for sees in HEADS:
        arch = heads_network(sees, quick=options.quick)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        found = [_importances(evaluators(each, options.on, final=True), arch, options) for each in trainings]
        blocks += [
            {
                "heads": NAMES[sees],
                "channels": role,
                "block": index,
                "kept, %": mean_and_range([kept[index, role] for _, kept in found], 100),
            }
            for index, role in found[0][1]
        ]
        for role in ROLES:
            relative, kept = ([_mean_of(role, pair[i]) for pair in found] for i in (0, 1))
            rows.append(
                {
                    "heads": NAMES[sees],
                    "channels": role,
                    "in its block": None if role == "ffn" else mean_and_range(relative),
                    "kept, %": mean_and_range(kept, 100),
                }
            )
    with options.draw("importance", 760, 340, len(HEADS)) as panels:
        for panel, name in zip(panels, NAMES.values(), strict=True):
            own = [row for row in blocks if row["heads"] == name]
            draw_lines(panel, own, "block", "kept, %", "channels")
            panel.set(title=name, ylim=(-3, 103))
    return {"Importance of channels": rows, "Importance by block": blocks}


def _importances(opened: Evaluators, arch: Arch, options: Options) -> tuple[ByBlock, ByBlock]:
    """Return relative importance and kept fraction by block and role, on training images."""
    data = opened.network_of.data
    chosen = np.random.default_rng(0).permutation(data.split.train)[
        : QUICK_IMPORTANCE_IMAGES if options.quick else IMPORTANCE_IMAGES
    ]
    network = opened.network_of.network(arch).cpu()
    found = taylor_importance(network, arch.blocks(), data.batches(chosen, arch.resolution, IMPORTANCE_BATCH))
    return relative_to_block(found), remaining_fractions(found, KEEP)


def _mean_of(role: str, figures: ByBlock) -> float:
    return statistics.fmean(value for (_, other), value in figures.items() if other == role)
