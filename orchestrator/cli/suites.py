"""How `bench measure --suite` names its networks and shows them beside the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luts.errors import BlocktimeError, StorageError, UsageError
from orchestrator.cli.exports import export_what_can_be, model_files
from orchestrator.cli.options import named_arch
from orchestrator.cli.output import Column, emit_json, emit_rows, say
from orchestrator.counting import Counts, count_module
from orchestrator.export import Artifact, ExportSpec
from orchestrator.measure.link import ModelFile
from orchestrator.suites import Entry
from orchestrator.suites.comparison import Comparison, Measured, Row, compare
from orchestrator.variant import Variant
from search.spaces import Arch, Published


@dataclass(frozen=True)
class Exported:
    """Files of the networks that could be exported, how those were lowered, and why the others could not."""

    files: dict[str, ModelFile]
    artifacts: Mapping[str, Artifact]
    failures: dict[str, str]


def suite_networks(names: Sequence[str]) -> tuple[dict[str, Arch | Published | None], dict[str, str]]:
    """The networks of the suite as `named_arch` has them, and reasons for those that nothing here is called."""
    found: dict[str, Arch | Published | None] = {}
    absent = {}
    for name in names:
        try:
            found[name] = named_arch(name)
        except UsageError as error:
            absent[name] = str(error)
    return found, absent


def export_suite(variant: Variant, specs: Mapping[str, ExportSpec], workers: int | None) -> Exported:
    """Every network that can be exported; a simulated device takes those of our own blocks."""
    if variant.is_simulated:
        foreign = {n: "a simulated device knows blocks alone" for n, spec in specs.items() if spec.module}
        ours = {name: spec for name, spec in specs.items() if name not in foreign}
        return Exported(model_files(variant, ours), {}, foreign)
    artifacts, failures = export_what_can_be(specs, workers)
    files = {name: ModelFile(artifact.path, artifact.sha256) for name, artifact in artifacts.items()}
    return Exported(files, artifacts, failures)


def count_networks(
    specs: Mapping[str, ExportSpec], ours: Mapping[str, Arch | Published | None]
) -> dict[str, Counts]:
    """Parameters and MACs of every network that can be built: of ours from the blocks, of others as they run."""
    counts: dict[str, Counts] = {}
    for name, spec in specs.items():
        network = ours.get(name)
        if network is not None:
            macs = network.macs()
            counts[name] = Counts(network.params(), macs.conv_linear, macs.total)
            continue
        from orchestrator.export.source import build_module

        try:
            counts[name] = count_module(*build_module(spec))
        except BlocktimeError as error:
            say(f"{name} can't be counted: {error}")
    return counts


def suite_comparison(
    entries: Sequence[Entry],
    rows: Sequence[Mapping[str, Any]],
    exported: Exported,
    counts: Mapping[str, Counts],
    failures: Mapping[str, str],
) -> Comparison:
    """The measured rows of `bench measure`, by model, beside the published figures."""
    measured = {}
    for row in rows:
        artifact = exported.artifacts.get(row["model"])
        report = artifact.report if artifact else None
        measured[row["model"]] = Measured(
            row["ms"],
            row["ci_low"],
            row["ci_high"],
            report.delegates if report else None,
            dict(report.operators) if report else None,
        )
    return compare(entries, counts, measured, failures)


_COLUMNS = [
    Column("row", "network"),
    Column("params", "parameters"),
    Column("published_params_m", "published, M"),
    Column("conv_linear_macs", "conv+linear MACs"),
    Column("all_macs", "all MACs"),
    Column("published_flops_g", "published, G"),
    Column("ms", "ms", 2),
    Column("ci_low", "95 % low", 2),
    Column("ci_high", "high", 2),
    Column("rank", "rank"),
    Column("shared_rank", "of shared"),
    Column("published_ms", "published ms", 1),
    Column("published_rank", "its rank"),
    Column("published_top1_percent", "published top-1", 1),
]

_LOWERED = [
    Column("row", "network"),
    Column("model", "model"),
    Column("delegates", "delegates"),
    Column("outside", "outside them"),
    Column("remark", "remark"),
]


def show_suite(
    title: str, comparison: Comparison, head: Mapping[str, Any], pictures: Sequence[Path], as_json: bool
) -> None:
    """Print the table and how far the orders agree, or all of it as JSON."""
    tables = {row.entry.figures: row.entry.table for row in comparison.rows}
    if as_json:
        document = {
            **head,
            "networks": [_cells(row) for row in comparison.rows],
            "kendall_tau": comparison.kendall_tau,
            "kendall_tau_networks": comparison.shared,
            "published": {
                name: table.model_dump(include={"label", "title", "paper", "table", "latency_device", "note"})
                for name, table in tables.items()
            },
            "pictures": [str(path) for path in pictures],
        }
        emit_json(document)
        return
    emit_rows(title, _COLUMNS, [_cells(row) for row in comparison.rows], False)
    emit_rows("how each was lowered", _LOWERED, [_lowered(row) for row in comparison.rows], False)
    for table in tables.values():
        device = f"latency on {table.latency_device}" if table.latency_device else "no latency of a phone"
        print(f"published figures: {table.paper}, {table.table}; {device}. {table.note}")
    tau = "-" if comparison.kendall_tau is None else f"{comparison.kendall_tau:.2f}"
    print(
        f"Kendall's tau of measured and published latency: {tau} over the {comparison.shared} networks that have "
        "both; other phones, runtimes and delegates are no reason to expect 1"
    )
    for path in pictures:
        say(f"picture: {path}")


def _cells(row: Row) -> dict[str, Any]:
    published = row.entry.published
    counts = row.counts
    return {
        "row": row.entry.row,
        "model": row.entry.model,
        "kind": row.entry.kind,
        "params": counts.params if counts else None,
        "conv_linear_macs": counts.conv_linear_macs if counts else None,
        "all_macs": counts.all_macs if counts else None,
        **(asdict(row.measured) if row.measured else {"ms": None, "outside": None}),
        "rank": row.rank,
        "shared_rank": row.shared_rank,
        "failure": row.failure,
        "published_table": row.entry.figures,
        "published_params_m": published.params_m,
        "published_flops_g": published.flops_g,
        "published_top1_percent": published.top1_percent,
        "published_ms": published.latency_ms,
        "published_rank": row.published_rank,
        "differs": row.entry.differs,
    }


def _lowered(row: Row) -> dict[str, Any]:
    cells = _cells(row)
    outside = cells["outside"]
    if outside is not None:
        cells["outside"] = (
            " ".join(f"{op.removeprefix('aten.')}x{n}" for op, n in outside.items()) or "nothing"
        )
    cells["remark"] = f"not measured: {row.failure}" if row.failure else row.entry.differs
    return cells


def raise_failures(comparison: Comparison) -> None:
    """BlocktimeError that names every network without a latency, with the reason."""
    failed = [row for row in comparison.rows if row.failure]
    if failed:
        reasons = "; ".join(f"{row.entry.row} ({row.failure})" for row in failed)
        raise BlocktimeError(f"{len(failed)} of {len(comparison.rows)} networks not measured: {reasons}")


def draw_suite(comparison: Comparison, device: str, simulated: bool, paths: Sequence[Path]) -> None:
    """Write the picture as each of the files (.png or .svg); StorageError where that can't be."""
    from orchestrator.report.suite_figure import save

    for path in paths:
        try:
            save(path, comparison, device, simulated)
        except OSError as error:
            raise StorageError(
                f"picture not written to {path}: {error.strerror}; free space or give another with --picture"
            ) from error
