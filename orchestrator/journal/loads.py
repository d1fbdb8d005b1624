"""How long a device takes to load a model: the first time, later times, and compiling where it compiles."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.journal.records import BatchRecord, Record


@dataclass(frozen=True)
class LoadTimes:
    """Medians in ms. `first_ms` and `compile_ms` are None where the runtime does not tell first loads from later
    ones, or where this device had loaded the model before this measurement."""

    load_ms: float
    first_ms: float | None
    compile_ms: float | None


def load_times(records: Iterable[Record]) -> dict[str, LoadTimes]:
    """Load times by model over all batches of a journal."""
    later: dict[str, list[int]] = defaultdict(list)
    first: dict[str, list[int]] = defaultdict(list)
    compiled: dict[str, list[int]] = defaultdict(list)
    for batch in records:
        if not isinstance(batch, BatchRecord):
            continue
        unknown: list[None] = [None] * len(batch.slots)
        rows = zip(
            batch.slots, batch.load_ns, batch.cached or unknown, batch.compile_ns or unknown, strict=True
        )
        for model, load_ns, cached, compile_ns in rows:
            (first if cached is False else later)[model].append(load_ns)
            if compile_ns is not None:
                compiled[model].append(compile_ns)
    return {
        model: LoadTimes(
            load_ms=_ms(later[model] or first[model]),
            first_ms=_ms_or_none(first[model]),
            compile_ms=_ms_or_none(compiled[model]),
        )
        for model in later.keys() | first.keys()
    }


def _ms(ns: list[int]) -> float:
    return statistics.median(ns) / 1e6


def _ms_or_none(ns: list[int]) -> float | None:
    return _ms(ns) if ns else None
