"""Published networks measured together, next to the figures of their papers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from luts.estimate.statistics import kendall_tau
from luts.format.errors import BlocktimeError, UsageError
from luts.format.table import Column, DrawnResult, Table, filled
from luts.published import PublishedTable
from orchestrator.suites import Suite, SuiteEntry, load_suite
from orchestrator.tasks.measure import measure_specs
from orchestrator.tasks.measured import PERCENTILE_COLUMNS, Setup, outside_text
from orchestrator.tasks.networks import Network, named_network, spec_of
from orchestrator.tasks.options import REQUIRED, MeasureOptions, argument
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.target import Target

_OF_COUNTS = ("params", "conv_linear_macs", "all_macs")
_OF_LATENCY = (
    "ms",
    "ci_low",
    "ci_high",
    "delegates",
    "outside",
    "calls",
    *(column.name for column in PERCENTILE_COLUMNS),
)


@dataclass(frozen=True, kw_only=True)
class SuiteCommand(MeasureOptions):
    """Measure published networks next to the figures of their papers.

    Without --output, pictures are written to the run's folder.
    """

    name: str = argument(
        REQUIRED, "Suite of published networks: autovit-table2 or efficient-vit-survey.", metavar="SUITE"
    )
    target: Target


@dataclass(frozen=True)
class MeasuredSuite(DrawnResult):
    """A suite's measurements next to the published figures.

    Attributes:
        rows: A flat row for each network, in the suite's order (`suite_rows`).
        folder: The run's.
    """

    name: str
    suite: Suite
    setup: Setup
    rows: Sequence[Mapping[str, Any]]
    folder: Path

    default_pictures: ClassVar = ("suite.png", "suite.svg")

    COLUMNS: ClassVar = (
        Column("row", "network"),
        Column("params", "parameters", counted=True, spare=3),
        Column("published_params", "published", counted=True, spare=6),
        Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=3),
        Column("all_macs", "all MACs", counted=True, spare=7),
        Column("published_flops", "published", counted=True, spare=6),
        Column("ms", "ms", 2),
        Column("ci_low", "95 % low", 2, spare=2),
        Column("ci_high", "high", 2, spare=2),
        *PERCENTILE_COLUMNS,
        Column("rank", "rank"),
        Column("shared_rank", "of shared", spare=4),
        Column("published_ms", "published ms", 1),
        Column("published_rank", "its rank", spare=4),
        Column("published_top1_percent", "published top-1", 1, spare=5),
    )

    LOWERED: ClassVar = (
        Column("row", "network"),
        Column("model", "model"),
        Column("delegates", "delegates"),
        Column("outside", "outside them"),
        Column("remark", "remark"),
    )

    @property
    def tables(self) -> dict[str, PublishedTable]:
        """Published tables by name."""
        return {entry.figures: entry.table for entry in self.suite.networks}

    @property
    def by_device(self) -> dict[str, tuple[float | None, int]]:
        """Rank correlation of the networks whose latencies were published for one device, by its name."""
        devices = {name: table.latency_device for name, table in self.tables.items()}
        return {
            device: rank_correlation([r for r in self.rows if devices[r["published_table"]] == device])
            for device in dict.fromkeys(devices.values())
            if device
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        tau, shared = rank_correlation(self.rows)
        shown = {"label", "title", "paper", "table", "latency_device", "note"}
        return {
            "suite": self.name,
            **self.setup.to_dict(),
            "networks": [dict(row) for row in self.rows],
            "kendall_tau": tau,
            "kendall_tau_networks": shared,
            "kendall_tau_by_device": {
                device: {"kendall_tau": tau, "networks": count}
                for device, (tau, count) in self.by_device.items()
            },
            "published": {name: table.model_dump(include=shown) for name, table in self.tables.items()},
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the measurements, how each network was lowered, and how far both rankings agree."""
        rows = [
            {
                **row,
                "published_params": row["published_params_m"] and 1e6 * row["published_params_m"],
                "published_flops": row["published_flops_g"] and 1e9 * row["published_flops_g"],
                "remark": f"not measured: {row['failure']}" if row["failure"] else row["differs"],
                "outside": None if row["outside"] is None else outside_text(row["outside"]),
            }
            for row in self.rows
        ]
        yield Table(f"{self.suite.title}: {self.setup.title}", filled(self.COLUMNS, rows), rows)
        yield Table("how each network was lowered", self.LOWERED, rows)
        for table in self.tables.values():
            device = f"latency on {table.latency_device}" if table.latency_device else "no latency of a phone"
            yield f"published figures: {table.paper}, {table.table}; {device}. {table.note}"
        for device, (tau, shared) in self.by_device.items():
            if tau is not None:
                yield (
                    f"Kendall's tau of measured latency and that published for {device}: {tau:.2f} over the "
                    f"{shared} networks that have both; phones, runtimes and delegates differ, so do not expect 1"
                )

    def draw(self) -> Any:
        """Draw measured next to published latencies."""
        from orchestrator.report.figures import suite_figure

        devices = sorted({table.latency_device for table in self.tables.values() if table.latency_device})
        title = f"{self.setup.target}, {self.setup.variant.name}"
        return suite_figure(self.rows, title, devices, self.setup.simulated)

    def check(self) -> None:
        """Raise BlocktimeError if a network has no latency."""
        failed = [f"{row['row']} ({row['failure']})" for row in self.rows if row["failure"]]
        if failed:
            raise BlocktimeError(
                f"{len(failed)} of {len(self.rows)} networks not measured: {'; '.join(failed)}",
                code="networks_not_measured",
            )


def run_suite(options: SuiteCommand, progress: Progress = silent) -> MeasuredSuite:
    """Measure a suite's networks next to their published figures; those that can't be measured say why.

    Raises:
        UsageError: an unknown suite or variant.
        BlocktimeError: as `measure_networks`, except for networks that can't be exported or run.
    """
    suite = load_suite(options.name)
    networks, unknown = _networks(suite)
    specs = {model: spec_of(network, options.target.variant) for model, network in networks.items()}
    measured = measure_specs(networks, specs, options.target, options, calls=0, progress=progress)
    known = {row.model: row.to_dict() for row in measured.networks}
    costs = {model: vars(counts) | known.get(model, {}) for model, counts in measured.counts.items()}
    rows = suite_rows(suite.networks, costs, unknown | dict(measured.failures))
    return MeasuredSuite(options.name, suite, measured.setup, rows, measured.folder)


def _networks(suite: Suite) -> tuple[dict[str, Network], dict[str, str]]:
    """Return the suite's networks, the reference first, and why others are unknown here."""
    networks, unknown = {}, {}
    for entry in sorted(suite.networks, key=lambda entry: entry.row != suite.reference):
        try:
            networks[entry.model] = named_network(entry.model)
        except UsageError as error:
            unknown[entry.model] = str(error)
    return networks, unknown


def suite_rows(
    entries: Sequence[SuiteEntry], costs: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return what each network costs here, as far as it is known, next to its published figures.

    Ranks begin at 1, the fastest. `shared_rank` and `published_rank` are among the networks with both a measured
    and a published latency.

    Args:
        entries: Networks of a suite.
        costs: Counts, latency and lowering by `SuiteEntry.model`.
        failures: Why networks were not measured, likewise.
    """
    rows = [_row(entry, costs.get(entry.model, {}), failures.get(entry.model, "")) for entry in entries]
    shared = [row for row in rows if row["ms"] is not None and row["published_ms"] is not None]
    for among, latency, rank in (
        ([row for row in rows if row["ms"] is not None], "ms", "rank"),
        (shared, "ms", "shared_rank"),
        (shared, "published_ms", "published_rank"),
    ):
        ordered = sorted(row[latency] for row in among)
        for row in among:
            row[rank] = 1 + ordered.index(row[latency])
    return rows


def _row(entry: SuiteEntry, cost: Mapping[str, Any], failure: str) -> dict[str, Any]:
    published = entry.published
    return {
        "row": entry.row,
        "model": entry.model,
        "kind": entry.kind,
        **{name: cost.get(name) for name in (*_OF_COUNTS, *_OF_LATENCY)},
        "rank": None,
        "shared_rank": None,
        "failure": failure,
        "published_table": entry.figures,
        "published_params_m": published.params_m,
        "published_flops_g": published.flops_g,
        "published_top1_percent": published.top1_percent,
        "published_ms": published.latency_ms,
        "published_rank": None,
        "differs": entry.differs,
    }


def rank_correlation(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, int]:
    """Return Kendall's tau-b of both latencies, None for fewer than two networks; and how many have both."""
    pairs = [(row["published_ms"], row["ms"]) for row in rows if row["shared_rank"] is not None]
    published, measured = zip(*pairs, strict=True) if pairs else ((), ())
    return kendall_tau(published, measured), len(pairs)
