"""Accuracy by the share of attention in networks of equal throughput (EfficientViT's figure 3).

The paper scales Swin and DeiT down to one speed with more or less attention in them. Here every share gets the
width at which its network is as fast as the one of FFN alone, all widths being measured in one run; then those
are trained.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.report.draw import ORANGE, figure
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.measured import MeasuredNetwork
from orchestrator.tasks.target import Target
from search.blocks import BlockSpec, parse_key
from search.spaces.published import Published
from tools.studies._networks import attention, ffn, spread
from tools.studies._options import Options
from tools.studies._pairs import mean_and_range
from tools.studies._training import Job, judged, open_images, train_all

BLOCKS, HEADS, QK_DIM, BATCH, THREADS = 8, 4, 8, 32, 1
WIDTH, WIDTHS, COUNTS = 96, tuple(range(40, 97, 8)), (0, 2, 3, 4, 6, 8)
"""Width of the network without attention, what the others choose from, and how many blocks are attention.

Attention on maps of 64 tokens costs more by its number of operators than by its width: FFN alone has to be as
wide as 96 for eight blocks of attention to be as fast at any width at all.
"""
QUICK_WIDTH, QUICK_WIDTHS, QUICK_COUNTS = 16, (8, 16), (0, 4)


@dataclass(frozen=True)
class Point:
    """A share of attention: its width, throughput with interval, and accuracies of the seeds."""

    share: float
    width: int
    measured: MeasuredNetwork
    accuracies: tuple[float, ...]


def network(count: int, width: int, classes: int) -> tuple[BlockSpec, ...]:
    """A stem to 64 tokens, `BLOCKS` blocks of which `count` are attention of all channels, a head; for 32 px."""
    stem = (
        parse_key(f"conv(in=3,out={width // 2},k=3,s=2)@32"),
        parse_key(f"mbconv(in={width // 2},out={width},k=3,e=2,s=2)@16"),
    )
    side = stem[-1].out_resolution
    attend, feed = attention("full", width, HEADS, QK_DIM, side), ffn(width, 2 * width, side)
    head = parse_key(f"head.bnfc(in={width},classes={classes})@{side}")
    return (*stem, *(attend if here else feed for here in spread(count, BLOCKS)), head)


def equally_fast(images_s: Mapping[tuple[int, int], float], width: int) -> dict[int, int]:
    """The width of each count at which it is nearest in speed to the network without attention of `width`.

    Args:
        images_s: Images a second by count and width.
        width: Of the network that the others are held against.
    """
    wanted = images_s[0, width]
    chosen = {0: width}
    for count in sorted({count for count, _ in images_s} - {0}):
        widths = [each for number, each in images_s if number == count]
        chosen[count] = min(widths, key=lambda each: abs(math.log(images_s[count, each] / wanted)))
    return chosen


def main(options: Options) -> str:
    """Measure all widths, choose, train, draw; the section's text."""
    images = open_images(options.data, options.quick)
    base, widths, counts = (
        (QUICK_WIDTH, QUICK_WIDTHS, QUICK_COUNTS) if options.quick else (WIDTH, WIDTHS, COUNTS)
    )
    sizes = [(count, width) for count in counts for width in (widths if count else (base,))]
    made = {size: network(*size, images.classes) for size in sizes}
    rows = _measured(made, options)
    chosen = equally_fast({size: row.throughput.images_s for size, row in rows.items()}, base)
    jobs = {
        count: [
            Job(
                keys=tuple(block.key for block in made[count, width]),
                data=options.data or "digits",
                digest=images.source.digest,
                epochs=options.epochs,
                seed=seed,
                quick=options.quick,
            )
            for seed in range(options.seeds)
        ]
        for count, width in chosen.items()
    }
    trained = iter(train_all([job for of_count in jobs.values() for job in of_count], options))
    points = [
        Point(
            count / BLOCKS,
            width,
            rows[count, width],
            tuple(next(trained).accuracy for _ in range(options.seeds)),
        )
        for count, width in chosen.items()
    ]
    _draw(points, options)
    table = "\n".join(_row(point) for point in points)
    return f"""### Share of attention at equal throughput (figure 3)

{BLOCKS} blocks on 64 tokens at 32 px; every share has the width, of {", ".join(map(str, widths))}, at which its
network is nearest in speed to the one of FFN alone (batch {BATCH}, one thread of {options.device}, all widths
interleaved in one run). {options.seeds} networks of each, {options.epochs} epochs on {len(images.split.train):,}
images of {Path(images.source.name).stem} ({images.classes} classes), top-1 on
{len(judged(images, options.quick)):,} held out, smallest and largest of the seeds in brackets.

| attention | width | parameters | images a second | 95 % | top-1 |
|---|---|---|---|---|---|
{table}

{conclusion(points)}

![Accuracy by share of attention at equal throughput](pictures/attention_accuracy.png)
"""


def _row(point: Point) -> str:
    speed = point.measured.throughput
    return (
        f"| {point.share:.0%} | {point.width} | {point.measured.params:,} | {speed.images_s:.0f} "
        f"| {speed.low:.0f} to {speed.high:.0f} | {mean_and_range(point.accuracies, '.1%')} |"
    )


def _measured(
    made: Mapping[tuple[int, int], Sequence[BlockSpec]], options: Options
) -> dict[tuple[int, int], MeasuredNetwork]:
    """By count and width.

    Raises:
        UsageError: one could not be measured.
    """
    names = {f"attention-{count}-width-{width}": (count, width) for count, width in made}
    measured = measure_networks(
        {name: Published(name, "this study", tuple(made[size])) for name, size in names.items()},
        Target(options.device, threads=THREADS),
        batches=(BATCH,),
        budget_s=options.budget_s,
        self_test=not options.quick,
        progress=print,
    )
    for name, reason in measured.failures.items():
        raise UsageError(f"{name} can't be measured: {reason}")
    return {names[row.model]: row for row in measured.networks}


def conclusion(points: Sequence[Point]) -> str:
    """Which share is best, and whether the seeds tell it from having none."""
    best = max(points, key=lambda point: statistics.fmean(point.accuracies))
    none = points[0]
    gained = statistics.fmean(best.accuracies) - statistics.fmean(none.accuracies)
    speeds = [point.measured.throughput.images_s / none.measured.throughput.images_s for point in points]
    apart = min(best.accuracies) > max(none.accuracies)
    said = (
        f"Best on average at a share of {best.share:.0%}, {100 * gained:+.1f} points to FFN alone"
        if best is not none
        else "FFN alone is best on average"
    )
    if best is not none:
        said += "; all of its seeds are above all of FFN's" if apart else "; the seeds overlap"
    return (
        f"{said}. Throughputs lie between {min(speeds):.2f} and {max(speeds):.2f} of that of FFN alone: so equal "
        "do the widths make them. The paper's best shares are 20 to 40 %, of 300 epochs of ImageNet."
    )


def _draw(points: Sequence[Point], options: Options) -> None:
    with figure(620, 340) as drawn:
        panel = drawn.subplots()
        shares = [100 * point.share for point in points]
        means = [100 * statistics.fmean(point.accuracies) for point in points]
        panel.fill_between(
            shares,
            [100 * min(point.accuracies) for point in points],
            [100 * max(point.accuracies) for point in points],
            color=ORANGE,
            alpha=0.2,
            linewidth=0,
        )
        panel.plot(shares, means, marker="o", color=ORANGE)
        for x, y, point in zip(shares, means, points, strict=True):
            label = f"{point.measured.throughput.images_s:.0f}/s\nwidth {point.width}"
            panel.annotate(label, (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=9)
        panel.set(xlabel="blocks that are attention, % (range of the seeds shaded)", ylabel="top-1, %")
        panel.set_xlim(-7, 107)
        panel.margins(y=0.3)
        panel.grid(axis="y")
        options.save(drawn, "attention_accuracy")
