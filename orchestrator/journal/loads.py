"""How long a device takes to load a model: the first time, later times, and compiling where it compiles."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.journal.records import BatchRecord, Record

# The system may throw away what Core ML prepared for a unit, which the agent can't see: the next load prepares it
# anew. Such a load is one that the agent calls a later one and that takes this many times the fastest of them...
_FIRST_FACTOR = 4.0

# ...unless it is so short that nothing can have been prepared in it: other programs may hold up any load.
_FIRST_NS = 500_000_000


@dataclass(frozen=True)
class LoadTimes:
    """Medians in ms. `first_ms` and `compile_ms` are None where the runtime does not tell first loads from later
    ones, or where this device had loaded the model before this measurement."""

    load_ms: float
    first_ms: float | None
    compile_ms: float | None


def load_times(records: Iterable[Record]) -> dict[str, LoadTimes]:
    """Load times by model over all batches of a journal; first loads as the agent says and as they took."""
    later: dict[str, list[int]] = defaultdict(list)
    first: dict[str, list[int]] = defaultdict(list)
    compiled: dict[str, list[int]] = defaultdict(list)
    told: dict[str, bool] = defaultdict(bool)
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
            told[model] |= cached is not None
    for model in (model for model in later if told[model]):
        limit_ns = max(_FIRST_NS, _FIRST_FACTOR * min(later[model]))
        first[model] += [load_ns for load_ns in later[model] if load_ns > limit_ns]
        later[model] = [load_ns for load_ns in later[model] if load_ns <= limit_ns]
    return {
        model: LoadTimes(
            load_ms=_ms(later[model] or first[model]),
            first_ms=_ms_or_none(first[model]),
            compile_ms=_ms_or_none(compiled[model]),
        )
        for model in later.keys() | first.keys()
    }


def first_loads_s(records: Iterable[Record]) -> list[float]:
    """Seconds that each model took on its way to this device for the first time, compiling included."""
    told = load_times(records).values()
    return [
        (times.first_ms + (times.compile_ms or 0.0)) / 1e3 for times in told if times.first_ms is not None
    ]


def _ms(ns: list[int]) -> float:
    return statistics.median(ns) / 1e6


def _ms_or_none(ns: list[int]) -> float | None:
    return _ms(ns) if ns else None
