"""Latency of networks of equal size by the share of their blocks that are attention (EfficientViT's figure 3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.journal.runs import find_run, runs_root
from orchestrator.measure.session import Measurement, Subject, measure
from orchestrator.plan.plan import Policy, model_id
from orchestrator.report.draw import BLUE, ORANGE, figure, legend
from orchestrator.tasks.models import model_files
from orchestrator.tasks.progress import steps
from orchestrator.tasks.target import Target
from search.blocks import BlockSpec, Macs, count, parse_key
from tools.studies._networks import HEADS, TOLERANCE, attention, check_equal, equal_ffn, spread
from tools.studies._options import Options
from tools.studies._pairs import NAMES

CHANNELS, ATTENTION_HEADS, RESOLUTION, BLOCKS = 192, 4, 224, 10
QK_DIMS = {"full": CHANNELS // ATTENTION_HEADS, "split": 16}
"""Plain attention has keys as wide as values; EfficientViT's have 16 channels."""
COUNTS = (0, 2, 4, 6, 8, 10)
"""Blocks that are attention."""

QUICK_CHANNELS, QUICK_RESOLUTION, QUICK_COUNTS = 16, 64, (0, 10)
QUICK_POLICY = Policy(max_rounds=20, min_passes=2, max_passes=2)
THREADS = 1
COLOURS = {"full": ORANGE, "split": BLUE}


@dataclass(frozen=True)
class Point:
    """One network: milliseconds and ratio to the network without attention, each with a 95 % interval."""

    share: float
    params: int
    macs: Macs
    ms: tuple[float, float, float]
    ratio: tuple[float, float, float]


def networks(
    sees: str, counts: Sequence[int], channels: int, resolution: int
) -> dict[int, tuple[BlockSpec, ...]]:
    """Number of attention blocks -> a network; every FFN block has as many parameters as an attention block.

    Raises:
        UsageError: they don't come out equally large.
    """
    stem = parse_key(f"evit.stem(in=3,out={channels})@{resolution}")
    side = stem.out_resolution
    attend = attention(sees, channels, ATTENTION_HEADS, min(QK_DIMS[sees], channels // ATTENTION_HEADS), side)
    feed = equal_ffn(channels, side, attend.params())
    head = parse_key(f"head.bnfc(in={channels},classes=1000)@{side}")
    made = {
        number: (stem, *(attend if here else feed for here in spread(number, BLOCKS)), head)
        for number in counts
    }
    check_equal(list(made.values()))
    return made


def main(options: Options) -> str:
    """Measure both kinds of attention, each interleaved with its own network of FFN alone; the section's text."""
    target = Target(options.device, threads=THREADS)
    variant = target.variant
    size = (
        (QUICK_COUNTS, QUICK_CHANNELS, QUICK_RESOLUTION) if options.quick else (COUNTS, CHANNELS, RESOLUTION)
    )
    points: dict[str, list[Point]] = {}
    for sees in HEADS:
        made = networks(sees, *size)
        points[sees] = _points(made, _measured(made, target, options))
    _draw(points, options)
    side = parse_key(f"evit.stem(in=3,out={size[1]})@{size[2]}").out_resolution
    simulated = ", SIMULATED: not measured on any device" if variant.is_simulated else ""
    tables = "\n".join(_table(sees, series) for sees, series in points.items())
    return f"""### Share of attention (figure 3)

{BLOCKS} blocks at a width of {size[1]} on a map of {side} x {side}, behind EfficientViT's stem for {size[2]} px;
attention is spread evenly among FFN blocks with as many parameters, so all networks of a table are equally
large (to {TOLERANCE:.0%}) and as deep. {options.device}, {variant.name}{simulated};
each table one interleaved measurement, ratios to the network without attention with 95 % intervals.

{tables}
{_conclusion(points)}

![Latency by share of attention](pictures/attention_share.png)
"""


def _measured(made: Mapping[int, Sequence[BlockSpec]], target: Target, options: Options) -> Measurement:
    variant = target.variant
    keys = [tuple(block.key for block in blocks) for blocks in made.values()]
    specs = {model_id(each): variant.export_spec(each) for each in keys}
    files = model_files(variant, specs, progress=print)
    digest = hashlib.sha256(" ".join(file.sha256 for file in files.values()).encode()).hexdigest()
    subject = Subject(files, model_id(keys[0]), digest, seed=0)
    with target.found() as device:
        run = find_run(runs_root(), f"study-attention-{device.name}-{variant.name}-{digest[:8]}")
        measured = measure(
            device,
            variant,
            subject,
            run.journal,
            QUICK_POLICY if options.quick else Policy.of(variant.is_simulated),
            budget_s=options.budget_s,
            progress=steps(print),
        )
    run.finish("measured")
    return measured


def _points(made: Mapping[int, Sequence[BlockSpec]], measured: Measurement) -> list[Point]:
    points = []
    for number, blocks in made.items():
        name = model_id(tuple(block.key for block in blocks))
        ratio = measured.estimates.ratios[name]
        ms, low, high = measured.ms(name)
        params, macs = count(blocks)
        points.append(
            Point(
                share=number / BLOCKS,
                params=params,
                macs=macs,
                ms=(ms, *measured.reference.widen(ms, low, high)),
                ratio=(math.exp(ratio.log_ratio), math.exp(ratio.low), math.exp(ratio.high)),
            )
        )
    return points


def _table(sees: str, points: Sequence[Point]) -> str:
    rows = [
        f"| {point.share:.0%} | {point.params:,} | {point.macs.total / 1e6:.0f} | {point.ms[0]:.2f} "
        f"| {point.ms[1]:.2f} to {point.ms[2]:.2f} "
        f"| {point.ratio[0]:.3f} | {point.ratio[1]:.3f} to {point.ratio[2]:.3f} |"
        for point in points
    ]
    return (
        f"| {NAMES[sees]} | parameters | million MACs | ms | 95 % | ratio | 95 % |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _conclusion(points: Mapping[str, Sequence[Point]]) -> str:
    said = []
    for sees, series in points.items():
        first, last = series[0], series[-1]
        macs = last.macs.total / first.macs.total
        said.append(
            f"{NAMES[sees]}: a network of attention alone takes {last.ratio[0]:.2f} times as long as one of FFN "
            f"alone, with {macs:.2f} times the MACs"
        )
    return (
        f"{'; '.join(said)}. Here parameters are equal, in the paper's figure 3 throughput is; "
        "`attention_accuracy` repeats that, with accuracy."
    )


def _draw(points: Mapping[str, Sequence[Point]], options: Options) -> None:
    from matplotlib.lines import Line2D

    slowest = max(points, key=lambda sees: points[sees][-1].ms[0])
    with figure(620, 360) as drawn:
        panel = drawn.subplots()
        for sees, series in points.items():
            shares, ms = [100 * point.share for point in series], [point.ms[0] for point in series]
            below = [point.ms[0] - point.ms[1] for point in series]
            above = [point.ms[2] - point.ms[0] for point in series]
            panel.errorbar(
                shares, ms, [below, above], marker="o", markersize=4, capsize=3, color=COLOURS[sees]
            )
            offset = 8 if sees == slowest else -16
            for x, y, point in zip(shares, ms, series, strict=True):
                label = f"x {point.ratio[0]:.2f}"
                panel.annotate(
                    label, (x, y), (0, offset), textcoords="offset points", ha="center", fontsize=10
                )
        panel.set(xlabel="blocks that are attention, %", ylabel="ms", xlim=(-6, 106))
        panel.margins(y=0.15)
        panel.set_ylim(bottom=0)
        panel.grid(axis="y")
        legend(
            drawn,
            [Line2D([], [], color=COLOURS[sees], marker="o", label=NAMES[sees]) for sees in points],
            620,
        )
        options.save(drawn, "attention_share")
