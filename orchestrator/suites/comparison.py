"""A suite's measurements beside the published figures: ranks and how far the two orders agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luts.estimate.accuracy import kendall_tau
from luts.estimate.percentiles import Percentiles
from luts.published import PublishedTable
from orchestrator.export.lower.counting import Counts
from orchestrator.suites.suite import Entry


@dataclass(frozen=True)
class Measured:
    """What a device gave: milliseconds with their 95 % interval, and what the lowering left to other kernels.

    `delegates` and `outside` are None for models that were not lowered here (a simulated device).
    """

    ms: float
    ci_low: float
    ci_high: float
    percentiles: Percentiles
    delegates: int | None
    outside: Mapping[str, int] | None

    def to_dict(self) -> dict[str, Any]:
        """One level, as JSON and tables have it."""
        fields = asdict(self)
        fields.pop("percentiles")
        return fields | self.percentiles.columns()


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

    def to_dict(self) -> dict[str, Any]:
        """As JSON and tables have it: one level, published figures beside our own."""
        published, counts = self.entry.published, self.counts
        return {
            "row": self.entry.row,
            "model": self.entry.model,
            "kind": self.entry.kind,
            "params": counts.params if counts else None,
            "conv_linear_macs": counts.conv_linear_macs if counts else None,
            "all_macs": counts.all_macs if counts else None,
            **(self.measured.to_dict() if self.measured else {"ms": None, "outside": None}),
            "rank": self.rank,
            "shared_rank": self.shared_rank,
            "failure": self.failure,
            "published_table": self.entry.figures,
            "published_params_m": published.params_m,
            "published_flops_g": published.flops_g,
            "published_top1_percent": published.top1_percent,
            "published_ms": published.latency_ms,
            "published_rank": self.published_rank,
            "differs": self.entry.differs,
        }


@dataclass(frozen=True)
class Comparison:
    """All rows in the suite's order, and Kendall's tau-b of measured and published latency over `shared` rows.

    `kendall_tau` is None for fewer than two of them.
    """

    rows: tuple[Row, ...]
    kendall_tau: float | None
    shared: int

    @property
    def tables(self) -> dict[str, PublishedTable]:
        """The published tables by name."""
        return {row.entry.figures: row.entry.table for row in self.rows}

    @property
    def failure(self) -> str:
        """Names every network without a latency, with the reason; empty where all have one."""
        failed = [f"{row.entry.row} ({row.failure})" for row in self.rows if row.failure]
        return (
            f"{len(failed)} of {len(self.rows)} networks not measured: {'; '.join(failed)}" if failed else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        shown = {"label", "title", "paper", "table", "latency_device", "note"}
        return {
            "networks": [row.to_dict() for row in self.rows],
            "kendall_tau": self.kendall_tau,
            "kendall_tau_networks": self.shared,
            "published": {name: table.model_dump(include=shown) for name, table in self.tables.items()},
        }


def compare(
    entries: Sequence[Entry],
    counts: Mapping[str, Counts],
    measured: Mapping[str, Measured],
    failures: Mapping[str, str],
) -> Comparison:
    """Put measurements beside published figures; the mappings are by `Entry.model`."""
    latency = {name: row.ms for name, row in measured.items()}
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
