"""Suites: networks that a paper compares, how each is built here, and the paper's figures next to measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luts.estimate.statistics import Percentiles, kendall_tau
from luts.format.errors import UsageError, unknown
from luts.format.files import read_json
from luts.published import PublishedRow, PublishedTable, load_published
from orchestrator.export.lower.counting import Counts

MAX_BYTES = 64 * 1024
"""Largest suite file; a suite of two dozen networks has 5 KiB."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9:@._-]{1,100}$")]


class Entry(BaseModel):
    """One network of a suite.

    Attributes:
        row: Its row in the published table, which is also its name here.
        kind: Convolutions, a transformer, or a hybrid of both.
        model: Its name for `--model`: a named network, or `timm:NAME@PX`.
        figures: Name of the published table.
        differs: How it differs from the published network, and why; empty if it does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Annotated[str, Field(min_length=1, max_length=80)]
    kind: Literal["conv", "transformer", "hybrid"]
    model: Name
    figures: Name
    differs: Annotated[str, Field(max_length=300)] = ""

    @property
    def published(self) -> PublishedRow:
        """The row of the published table."""
        return self.table.find(self.row)

    @property
    def table(self) -> PublishedTable:
        """The published table."""
        return load_published(self.figures)


class Suite(BaseModel):
    """Networks to measure together; `reference` is the row that the others' latencies are ratios to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=200)]
    reference: str
    networks: Annotated[tuple[Entry, ...], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        rows = [entry.row for entry in self.networks]
        models = [entry.model for entry in self.networks]
        if len(set(rows)) != len(rows) or len(set(models)) != len(models):
            raise ValueError("a network is listed twice")
        if self.reference not in rows:
            raise ValueError(f"the reference {self.reference!r} is not one of the networks")
        return self

    @property
    def in_order(self) -> tuple[Entry, ...]:
        """The networks with the reference first."""
        return tuple(sorted(self.networks, key=lambda entry: entry.row != self.reference))


def list_suites() -> tuple[str, ...]:
    """Return the names of the packaged suites."""
    return tuple(sorted(path.stem for path in _root().glob("*.json")))


def load_suite(name: str) -> Suite:
    """Load a packaged suite.

    Raises:
        UsageError: unknown suite; the message names similar ones.
        InvalidArtifactError: its file is damaged.
    """
    if name not in list_suites():
        raise UsageError(unknown("suite", name, list_suites()), code="unknown_suite")
    return read_json(_root() / f"{name}.json", Suite, MAX_BYTES, "restore it")


def _root() -> Path:
    return Path(__file__).parent


@dataclass(frozen=True)
class SuiteLatency:
    """Latency of a network in ms with its 95 % interval, its delegates, and its operators outside of delegates.

    `delegates` and `outside` are None for models that were not lowered here (a simulated device).
    """

    ms: float
    ci_low: float
    ci_high: float
    percentiles: Percentiles
    delegates: int | None
    outside: Mapping[str, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a flat JSON document."""
        fields = asdict(self)
        fields.pop("percentiles")
        return fields | self.percentiles.columns()


@dataclass(frozen=True)
class SuiteRow:
    """One network: its size, its measured latency and its published figures.

    Attributes:
        entry: The network and its published figures.
        counts: Parameters and MACs; None if it cannot be built.
        measured: Its latency; None if it was not measured.
        failure: Why it was not measured.
        rank: Rank by measured latency among all measured networks, 1 the fastest.
        shared_rank: Rank among the networks that have a published latency too.
        published_rank: Rank by published latency among the same networks.
    """

    entry: Entry
    counts: Counts | None
    measured: SuiteLatency | None
    failure: str
    rank: int | None
    shared_rank: int | None
    published_rank: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a flat JSON document."""
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
class SuiteComparison:
    """All rows in the suite's order, and Kendall's tau-b of measured and published latency over `shared` rows.

    `kendall_tau` is None for fewer than two of them.
    """

    rows: tuple[SuiteRow, ...]
    kendall_tau: float | None
    shared: int

    @property
    def tables(self) -> dict[str, PublishedTable]:
        """Published tables by name."""
        return {row.entry.figures: row.entry.table for row in self.rows}

    @property
    def failure(self) -> str:
        """Networks without a latency, with the reasons; empty if all have one."""
        failed = [f"{row.entry.row} ({row.failure})" for row in self.rows if row.failure]
        return (
            f"{len(failed)} of {len(self.rows)} networks not measured: {'; '.join(failed)}" if failed else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a flat JSON document."""
        shown = {"label", "title", "paper", "table", "latency_device", "note"}
        return {
            "networks": [row.to_dict() for row in self.rows],
            "kendall_tau": self.kendall_tau,
            "kendall_tau_networks": self.shared,
            "published": {name: table.model_dump(include=shown) for name, table in self.tables.items()},
        }


def compare_with_published(
    entries: Sequence[Entry],
    counts: Mapping[str, Counts],
    measured: Mapping[str, SuiteLatency],
    failures: Mapping[str, str],
) -> SuiteComparison:
    """Return measurements next to published figures; the mappings have `Entry.model` as keys."""
    latency = {name: row.ms for name, row in measured.items()}
    published = {
        entry.model: ms
        for entry in entries
        if entry.model in latency and (ms := entry.published.latency_ms) is not None
    }
    shared = {name: latency[name] for name in published}
    ranks, shared_ranks, published_ranks = _ranks(latency), _ranks(shared), _ranks(published)
    rows = tuple(
        SuiteRow(
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
    return SuiteComparison(rows, tau, len(names))


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """Return ranks from 1; equal values have the same rank."""
    ordered = sorted(values.values())
    return {name: 1 + ordered.index(value) for name, value in values.items()}
