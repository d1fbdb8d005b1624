"""Percentiles of single calls in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luts.estimate.percentiles import TOLD, calls_needed
from orchestrator.cli.output import Column

PERCENTILES = (
    Column("p50_ms", "p50", 3, spare=3),
    Column("p50_low", "95 % low", 3, spare=9),
    Column("p50_high", "high", 3, spare=9),
    Column("p90_ms", "p90", 3, spare=2),
    Column("p90_low", "95 % low", 3, spare=9),
    Column("p90_high", "high", 3, spare=9),
    Column("p99_ms", "p99", 3, spare=3),
    Column("p99_low", "95 % low", 3, spare=9),
    Column("p99_high", "high", 3, spare=9),
    Column("calls", "calls", spare=8),
)


def short_of_calls(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line that says what percentiles are, and how many calls the absent ones take."""
    absent = [percent for percent in TOLD if any(row[f"p{percent}_ms"] is None for row in rows)]
    needs = "".join(f"; p{percent} takes {calls_needed(percent / 100)} calls" for percent in absent)
    return [f"percentiles are of single calls as they ran, disturbances included{needs}"] if rows else []
