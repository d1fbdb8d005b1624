"""Latency of equally large networks by the fraction of attention blocks (EfficientViT's figure 3)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.tasks.measure import MeasureCommand, measure_networks
from search.blocks import BlockSpec, parse_key
from search.spaces.published import Published
from tools.studies.attention_networks import (
    ATTENTION_HEADS,
    HEADS,
    NAMES,
    attention,
    check_equal_size,
    ffn_with,
    spread_evenly,
)
from tools.studies.shared import Options, draw_lines
from tools.tables import Interval, Tables, log

BLOCKS, CHANNELS, RESOLUTION, COUNTS = 10, 192, 224, (0, 2, 4, 6, 8, 10)
QUICK_CHANNELS, QUICK_RESOLUTION, QUICK_COUNTS = 16, 64, (0, 10)
QK_DIMS = {"full": CHANNELS // ATTENTION_HEADS, "split": 16}
"""Keys of plain attention are as wide as values; EfficientViT's have 16 channels."""


def networks(
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
        number: (stem, *(attend if here else feed for here in spread_evenly(number, BLOCKS)), head)
        for number in counts
    }
    check_equal_size(list(made.values()))
    return made


def main(options: Options) -> Tables:
    """Measure both kinds of attention, each in one interleaved run; `ratio` is to the network without attention."""
    size = (
        (QUICK_COUNTS, QUICK_CHANNELS, QUICK_RESOLUTION) if options.quick else (COUNTS, CHANNELS, RESOLUTION)
    )
    rows = []
    for sees in HEADS:
        named = {
            f"{sees}-attention-{number}": Published(f"{sees}-attention-{number}", "this study", blocks)
            for number, blocks in networks(sees, *size).items()
        }
        measured = measure_networks(
            MeasureCommand(
                networks=named,
                target=options.target,
                budget_s=options.budget_s,
                self_test=not options.quick,
            ),
            log,
        )
        rows += [
            {
                "heads": NAMES[sees],
                "attention, %": 100 * int(row.model.rpartition("-")[2]) / BLOCKS,
                "parameters": row.params,
                "million MACs": (row.all_macs or 0) / 1e6,
                "ms": Interval(row.ms, row.ci_low, row.ci_high),
                "ratio": Interval(row.ratio, row.ratio_low, row.ratio_high),
            }
            for row in measured.networks
        ]
    with options.draw("attention_share", 620, 360) as (panel,):
        draw_lines(panel, rows, "attention, %", "ms", "heads")
        panel.set_ylim(bottom=0)
    return {"Share of attention at equal parameters": rows}
