"""Where in a measurement each sample was taken."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.journal.log import samples_table
from orchestrator.journal.records import Record


def sample_places(records: Sequence[Record]) -> list[tuple[int, int, int]]:
    """Every timed visit as (batch, round, position): none may come twice, not in another segment either."""
    table = samples_table(records)
    columns = [table.column(name).to_pylist() for name in ("batch", "round", "position")]
    return list(zip(*columns, strict=True))
