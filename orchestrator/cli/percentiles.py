"""Percentiles of single calls in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luts.estimate.statistics import REPORTED_PERCENTILES, calls_needed
from luts.format.table import Column

PERCENTILES = tuple(
    column
    for percent in REPORTED_PERCENTILES
    for column in (
        Column(f"p{percent}_ms", f"p{percent}", 3, spare=1),
        Column(f"p{percent}_low", f"p{percent} low", 3, spare=9),
        Column(f"p{percent}_high", "high", 3, spare=9),
    )
)


def told_columns(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Without the percentiles that no row has."""
    told = {name for row in rows for name, value in row.items() if value is not None}
    return [column for column in columns if column not in PERCENTILES or column.name in told]


def short_of_calls(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line that says what percentiles are, and how many calls the absent ones take."""
    absent = [
        percent for percent in REPORTED_PERCENTILES if any(row[f"p{percent}_ms"] is None for row in rows)
    ]
    needs = "".join(f"; p{percent} takes {calls_needed(percent / 100)} calls" for percent in absent)
    needs += ", for which a longer --budget leaves time" if absent else ""
    return [f"percentiles are of single calls as they ran, disturbances included{needs}"] if rows else []
