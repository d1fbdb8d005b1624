"""Accuracy by the fraction of attention blocks in networks of equal throughput (EfficientViT's figure 3).

The paper scales Swin and DeiT to one speed with more or less attention. Here every number of attention blocks gets
the width at which its network is as fast as the one of FFN blocks alone; then those networks are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.measured import MeasuredNetwork
from tools.studies.attention_networks import (
    BLOCKS,
    COUNTS,
    QUICK_COUNTS,
    QUICK_WIDTHS,
    WIDTHS,
    share_network,
    training_of,
)
from tools.studies.shared import Options, draw_lines, run_parallel
from tools.studies.trainings import Training, evaluators
from tools.tables import Interval, Tables, log, mean_and_range

BATCH = 32

Size = tuple[int, int]
"""Attention blocks and width."""


def equally_fast(images_s: Mapping[Size, float], width: int) -> dict[int, int]:
    """Return the width, for each number of attention blocks, that is nearest in speed to FFN alone of `width`.

    Args:
        images_s: Images per second by number of attention blocks and width.
        width: Width of the network without attention.
    """
    chosen = {0: width}
    for count in sorted({count for count, _ in images_s} - {0}):
        speeds = {each: speed for (number, each), speed in images_s.items() if number == count}
        chosen[count] = min(speeds, key=lambda each: abs(math.log(speeds[each] / images_s[0, width])))
    return chosen


def main(options: Options) -> Tables:
    """Measure all widths in one run, choose, train; validation top-1 in percent with the range over seeds."""
    assert options.images
    widths, counts = (QUICK_WIDTHS, QUICK_COUNTS) if options.quick else (WIDTHS, COUNTS)
    sizes = [(count, width) for count in counts for width in (widths if count else widths[-1:])]
    measured = _measured(sizes, options)
    chosen = equally_fast({size: row.images_s[0] for size, row in measured.items()}, widths[-1])
    rows = []
    for count, width in chosen.items():
        arch = share_network(count, width)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        top1 = [evaluators(each, options.on, final=True).top1.accuracies([arch])[0] for each in trainings]
        per_s = measured[count, width].images_s
        rows.append(
            {
                "attention, %": 100 * count / BLOCKS,
                "width": width,
                "parameters": arch.params(),
                "images a second": Interval(*per_s),
                "top-1": mean_and_range(top1, 100),
            }
        )
    with options.draw("attention_accuracy", 620, 340) as (panel,):
        draw_lines(
            panel, [row | {"batch": f"batch {BATCH}"} for row in rows], "attention, %", "top-1", "batch"
        )
    return {"Share of attention at equal throughput": rows}


def _measured(sizes: list[Size], options: Options) -> dict[Size, MeasuredNetwork]:
    names = {f"attention-{count}-width-{width}": (count, width) for count, width in sizes}
    measured = measure_networks(
        MeasureCommand(
            networks={name: share_network(*size) for name, size in names.items()},
            target=options.target,
            batches=(BATCH,),
            budget_s=options.budget_s,
            self_test=not options.quick,
        ),
        log,
    )
    return {names[row.model]: row for row in measured.networks}
