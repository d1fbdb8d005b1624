"""Networks measured side by side, as a table on the terminal."""

from __future__ import annotations

from luts.format.table import Column
from orchestrator.cli.lowered import outside_text
from orchestrator.cli.output import emit_rows, tell
from orchestrator.cli.percentiles import PERCENTILES, short_of_calls, told_columns
from orchestrator.tasks.measured import MeasuredNetworks

_USAGE = (
    Column("memory_mib", "MiB alone", 1, spare=3),
    Column("memory_low", "at least", 1, spare=9),
    Column("memory_high", "at most", 1, spare=9),
    Column("memory_peak", "peak", 1, spare=9),
    Column("energy_mj", "mJ a call", 3, spare=3),
    Column("energy_low", "at least", 3, spare=9),
    Column("energy_high", "at most", 3, spare=9),
)

_THROUGHPUT = (
    Column("batch", "batch"),
    Column("images_s", "images/s", 1),
    Column("images_s_low", "95 % low", 1),
    Column("images_s_high", "high", 1),
)
"""Shown where several images are computed at once: at batch 1 they say what milliseconds say."""

_COLUMNS = [
    Column("model", "model"),
    *_THROUGHPUT,
    Column("params", "parameters", counted=True, spare=2),
    Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=3),
    Column("all_macs", "all MACs", counted=True, spare=7),
    Column("ms", "ms", 3),
    Column("ci_low", "95 % low", 3),
    Column("ci_high", "high", 3),
    *PERCENTILES,
    Column("ratio", "to reference", 3),
    Column("ratio_low", "95 % low", 3, spare=2),
    Column("ratio_high", "high", 3, spare=2),
    Column("load_ms", "load ms", 2, spare=4),
    Column("first_ms", "first load ms", 2, spare=6),
    Column("compile_ms", "compiling ms", 1, spare=6),
    *_USAGE,
    Column("loads", "loads", spare=5),
    Column("rounds", "rounds", spare=8),
    Column("calls", "calls", spare=8),
]

_LOWERED = [
    Column("model", "model"),
    _THROUGHPUT[0],
    Column("delegates", "delegates"),
    Column("outside", "operators outside them"),
]


def show_measured(device: str, measured: MeasuredNetworks) -> None:
    """On standard output, with how each network was lowered and what is to be kept in mind."""
    rows = [network.to_dict() for network in measured.networks]
    may_be_untold = ("first_ms", "compile_ms", *(column.name for column in _USAGE))
    untold = {name for name in may_be_untold if not any(row[name] for row in rows)}
    if all(row["batch"] == 1 for row in rows):
        untold |= {column.name for column in _THROUGHPUT}
    columns = [column for column in told_columns(_COLUMNS, rows) if column.name not in untold]
    emit_rows(f"{device}, {measured.setup.variant.name}{measured.setup.warning}", columns, rows, False)
    if not measured.setup.variant.is_simulated:
        lowered = [row | {"outside": outside_text(row["outside"])} for row in rows]
        shown = [column for column in _LOWERED if column.name not in untold]
        emit_rows("how each was lowered", shown, lowered, False)
    tell(
        f"reference {measured.reference}: ratios to it are known better than milliseconds, whose intervals "
        f"include its own; noise floor {100 * measured.setup.noise_floor:.2f} % between two loads"
    )
    for note in short_of_calls(rows):
        tell(note)
