"""A suite's measurements beside the published figures: ranks and how far the two orders agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luts.estimate.accuracy import kendall_tau
from orchestrator.counting import Counts
from orchestrator.suites.suite import Entry


@dataclass(frozen=True)
class Measured:
    """What a device gave: milliseconds with their 95 % interval, and what the lowering left to other kernels.

    `delegates` and `outside` are None for models that were not lowered here (a simulated device).
    """

    ms: float
    ci_low: float
    ci_high: float
    delegates: int | None
    outside: Mapping[str, int] | None


@dataclass(frozen=True)
class Row:
    """One network: what it costs on paper, what was measured, what is published.

    Attributes:
        entry: The network and where its published figures are.
        counts: None where it can't even be built.
        measured: None where it has no latency, for the reason in `failure`.
        rank: Place by measured latency among all that were measured, 1 the fastest.
        shared_rank: The same among those that have a published latency too.
        published_rank: Place by published latency among the same networks.
    """

    entry: Entry
    counts: Counts | None
    measured: Measured | None
    failure: str
    rank: int | None
    shared_rank: int | None
    published_rank: int | None


@dataclass(frozen=True)
class Comparison:
    """All rows in the suite's order, and Kendall's tau-b of measured and published latency over `shared` rows.

    `kendall_tau` is None for fewer than two of them.
    """

    rows: tuple[Row, ...]
    kendall_tau: float | None
    shared: int


def compare(
    entries: Sequence[Entry],
    counts: Mapping[str, Counts],
    measured: Mapping[str, Measured],
    failures: Mapping[str, str],
) -> Comparison:
    """Put measurements beside published figures; the mappings are by `Entry.model`."""
    latency = {name: found.ms for name, found in measured.items()}
    published = {
        entry.model: ms
        for entry in entries
        if entry.model in latency and (ms := entry.published.latency_ms) is not None
    }
    shared = {name: latency[name] for name in published}
    ranks, shared_ranks, published_ranks = _ranks(latency), _ranks(shared), _ranks(published)
    rows = tuple(
        Row(
            entry,
            counts.get(entry.model),
            measured.get(entry.model),
            failures.get(entry.model, ""),
            ranks.get(entry.model),
            shared_ranks.get(entry.model),
            published_ranks.get(entry.model),
        )
        for entry in entries
    )
    names = list(shared)
    tau = kendall_tau([published[n] for n in names], [shared[n] for n in names]) if len(names) > 1 else None
    return Comparison(rows, tau, len(names))


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """Places from 1, equal values at the same place."""
    ordered = sorted(values.values())
    return {name: 1 + ordered.index(value) for name, value in values.items()}
