"""Published networks measured together, next to the figures of their papers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from luts.format.errors import BlocktimeError, UsageError
from luts.format.table import Column, DrawnResult, Table, filled
from orchestrator.suites import Suite, load_suite
from orchestrator.suites.suite import SuiteComparison, SuiteLatency, SuiteRow, compare_with_published
from orchestrator.tasks.measure import measure_specs
from orchestrator.tasks.measured import PERCENTILE_COLUMNS, Setup, outside_text
from orchestrator.tasks.networks import Network, named_network, spec_of
from orchestrator.tasks.options import REQUIRED, MeasureOptions, argument
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.target import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class SuiteCommand(MeasureOptions):
    """Measure published networks next to the figures of their papers.

    Without --output, pictures are written to the run's folder.
    """

    name: str = argument(REQUIRED, "Suite of published networks: autovit-table2.", metavar="SUITE")
    target: Target


@dataclass(frozen=True)
class MeasuredSuite(DrawnResult):
    """A suite's measurements next to the published figures; `folder` is the run's."""

    name: str
    suite: Suite
    setup: Setup
    comparison: SuiteComparison
    folder: Path

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
    def title(self) -> str:
        """Title of the picture."""
        return f"{self.setup.target}, {self.setup.variant.name}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"suite": self.name} | self.setup.to_dict() | self.comparison.to_dict()

    def report(self) -> Iterator[Table | str]:
        """Yield the measurements, how each network was lowered, and how far both rankings agree."""
        comparison = self.comparison
        rows = [_cells(row) for row in comparison.rows]
        columns = filled(self.COLUMNS, rows, PERCENTILE_COLUMNS)
        yield Table(f"{self.suite.title}: {self.setup.title}", columns, rows)
        yield Table("how each network was lowered", self.LOWERED, [_lowered(row) for row in comparison.rows])
        for table in comparison.tables.values():
            device = f"latency on {table.latency_device}" if table.latency_device else "no latency of a phone"
            yield f"published figures: {table.paper}, {table.table}; {device}. {table.note}"
        tau = "-" if comparison.kendall_tau is None else f"{comparison.kendall_tau:.2f}"
        yield (
            f"Kendall's tau of measured and published latency: {tau} over the {comparison.shared} networks that "
            "have both; phones, runtimes and delegates differ, so do not expect 1"
        )

    @property
    def default_pictures(self) -> tuple[Path, ...]:
        """Pictures in the run's folder."""
        return self.folder / "suite.png", self.folder / "suite.svg"

    def draw(self) -> Figure:
        """Draw measured next to published latencies."""
        from orchestrator.report.figures import suite_figure

        return suite_figure(self.comparison, self.title, self.setup.simulated)

    def check(self) -> None:
        """Raise BlocktimeError if a network has no latency."""
        if failure := self.comparison.failure:
            raise BlocktimeError(failure, code="networks_not_measured")


def _cells(row: SuiteRow) -> dict[str, Any]:
    """Return a row's fields with published parameters and FLOPs as plain numbers."""
    cells = row.to_dict()
    published = {"params": (cells["published_params_m"], 1e6), "flops": (cells["published_flops_g"], 1e9)}
    return cells | {f"published_{name}": n and n * unit for name, (n, unit) in published.items()}


def _lowered(row: SuiteRow) -> dict[str, Any]:
    cells = row.to_dict()
    if row.measured and row.measured.outside is not None:
        cells["outside"] = outside_text(row.measured.outside)
    cells["remark"] = f"not measured: {row.failure}" if row.failure else row.entry.differs
    return cells


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
    latencies = {
        row.model: SuiteLatency(row.ms, row.ci_low, row.ci_high, row.percentiles, row.delegates, row.outside)
        for row in measured.networks
    }
    failures = unknown | dict(measured.failures)
    comparison = compare_with_published(suite.networks, measured.counts, latencies, failures)
    return MeasuredSuite(options.name, suite, measured.setup, comparison, measured.folder)


def _networks(suite: Suite) -> tuple[dict[str, Network], dict[str, str]]:
    """Return the suite's networks, the reference first, and why others are unknown here."""
    networks, unknown = {}, {}
    for entry in suite.in_order:
        try:
            networks[entry.model] = named_network(entry.model)
        except UsageError as error:
            unknown[entry.model] = str(error)
    return networks, unknown
