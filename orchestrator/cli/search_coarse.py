"""`bench search` without a supernet: a table of the largest networks within the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.cli.output import emit_facts, emit_json, emit_rows, say
from orchestrator.tasks.coarse import LargestNetworks
from orchestrator.winner.card import by_lut, limits_text, lut_text
from search.algorithms import SearchSettings

OF_COARSE = ("seed", "draws", "skeletons")
"""Settings that count without a supernet."""


def check_settings(settings: SearchSettings) -> None:
    """`UsageError` where a setting is given that only a search with a supernet has."""
    default = SearchSettings()
    for name in SearchSettings.model_fields:
        if name not in OF_COARSE and getattr(settings, name) != getattr(default, name):
            raise UsageError(f"--{name.replace('_', '-')} is for a search with a supernet; add --supernet")


def show_largest(found: LargestNetworks, output: Path, as_json: bool) -> None:
    """As a table or as JSON."""
    if as_json:
        emit_json(_document(found))
        return
    emit_facts("", facts_of(found), False)
    rows = [row.model_dump() | {"file": file.name} for file, row in found.files.items()]
    emit_rows("the largest, as predicted", _COLUMNS, rows, False)
    if found.measured:
        rows = [
            row.model_dump() | {"file": file.name, "error": row.error}
            for file, row in zip(found.files, found.measured, strict=False)
        ]
        emit_rows("the first of them, measured with random weights", _MEASURED, rows, False)
    say(
        f"architectures in {output / 'networks'}; bench train, then bench search --supernet says which is accurate"
    )


def facts_of(found: LargestNetworks) -> dict[str, str]:
    """What a table of the result says above it."""
    result, coarse = found.result, found.result.coarse
    names = [pin.name for pin in result.luts]
    latencies = (result.budget.latency_ms, *result.budget.further_latency_ms)
    what = "all" if result.whole else "drawn from all"
    return {
        "lut": " and ".join(map(lut_text, result.luts)),
        "budget": limits_text(
            result.budget, by_lut([f"{ms:.3f} ms" for ms in latencies], names), result.luts
        ),
        "within it": f"{100 * coarse.feasible_share:.3g} % of the space; "
        f"the fastest has {coarse.smallest_ms:.3f} ms",
        "networks": f"the {len(result.networks)} largest by {result.largest_by}, of {coarse.feasible:,}, "
        f"{what} within the budget",
        "trained": "nothing: largest is all that is said of them",
    }


def _document(found: LargestNetworks) -> dict[str, Any]:
    result = found.result
    return {
        **result.model_dump(
            include={"space", "budget", "count", "draws", "seed", "coarse", "whole", "largest_by"}
        ),
        "trained": False,
        "luts": [pin.name for pin in result.luts],
        "read_for": result.luts[0].read_for,
        "device_log_sd": result.luts[0].device_log_sd,
        "networks": [row.model_dump() | {"file": str(file)} for file, row in found.files.items()],
        "measured": [row.model_dump() | {"weights": "random"} for row in found.measured],
    }


_COLUMNS = [
    Column("file", "architecture"),
    Column("macs", "conv+linear MACs", counted=True),
    Column("params", "parameters", counted=True),
    Column("latency_ms", "predicted ms", 3),
    Column("latency_high_ms", "up to", 3, spare=1),
    Column("memory_bytes", "activation bytes", counted=True, spare=2),
]

_MEASURED = [
    Column("file", "architecture"),
    Column("predicted_ms", "predicted ms", 3),
    Column("measured_ms", "measured ms", 3),
    Column("measured_low", "low", 3, spare=1),
    Column("measured_high", "high", 3, spare=1),
    Column("error", "error", 2, percent=True),
]
