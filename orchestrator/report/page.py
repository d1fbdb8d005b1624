"""The report's page: one self-contained HTML file without scripts, fonts or requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from luts.format.files import storage_error, write_atomically
from orchestrator.journal.conditions import describe_conditions
from orchestrator.report.draw import Section
from orchestrator.report.inputs import NamedLut, ReportInputs
from orchestrator.report.lut_sections import agreement, entries, quiet
from orchestrator.report.search_sections import architecture, history, latency, tradeoff, training
from search.algorithms.record import SearchResult

if TYPE_CHECKING:
    from search.supernet.train.checkpoint import CheckpointInfo


SECTIONS = (tradeoff, architecture, latency, entries, agreement, history, training, quiet)
"""In the order of the page."""


def render(inputs: ReportInputs) -> str:
    """Render the report as HTML; equal inputs give equal text.

    Raises UsageError: the LUT lacks the winner's blocks.
    """
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title(inputs),
        subtitle=subtitle(inputs),
        day=inputs.lut.lut.meta.created[:10] if inputs.lut else "",
        simulated=inputs.simulated,
        tiles=tiles(inputs),
        sections=sections(inputs),
        contradictions=inputs.contradictions,
        absent=inputs.absent,
        facts=provenance(inputs),
    )


def sections(inputs: ReportInputs) -> list[Section]:
    """Return all sections that have data."""
    made = (make(inputs) for make in SECTIONS)
    return [section for section in made if section is not None]


def write_report(path: Path, html: str) -> None:
    """Write the page, all or nothing. Raises StorageError."""
    try:
        write_atomically(path, html.encode())
    except OSError as error:
        raise storage_error(
            f"report not written to {path}", error, "give another file with --output"
        ) from error


@dataclass(frozen=True)
class Facts:
    """Named values, one per line."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tile:
    """A headline number, its name and a detail."""

    value: str
    label: str
    detail: str


def title(inputs: ReportInputs) -> str:
    """Return the subject of the report."""
    if inputs.lut is not None:
        meta = inputs.lut.lut.meta
        return f"{meta.space} on {meta.device.name}"
    if inputs.search is not None:
        return f"Search in {inputs.search.space}"
    return "Training" if inputs.curves and inputs.supernet is None else "A run without a LUT"


def subtitle(inputs: ReportInputs) -> str:
    """Return device and variant of the LUT; "" without one."""
    if inputs.lut is None:
        return ""
    meta = inputs.lut.lut.meta
    return ", ".join(filter(None, (meta.device.model, meta.device.soc, meta.variant)))


def tiles(inputs: ReportInputs) -> tuple[Tile, ...]:
    """Return the headline numbers."""
    shown = []
    winner, measured = inputs.chosen, inputs.winner_measured
    if inputs.search is not None and winner is not None:
        shown.append(
            Tile(f"{100 * winner.accuracy:.1f} %", "winner's accuracy", "images held out of training")
        )
        budget = f"budget {inputs.search.constraints.latency_ms:.4g} ms"
        if measured is None:
            shown.append(Tile(f"{winner.latency_ms:.3f} ms", "winner's latency", f"predicted, {budget}"))
        else:
            detail = f"predicted {measured.predicted_ms:.3f}, {budget}"
            shown.append(Tile(f"{measured.measured_ms:.3f} ms", "winner, measured", detail))
    if inputs.lut is not None:
        lut = inputs.lut.lut
        measured_entries = sum(entry.method != "prior" for entry in lut.entries)
        detail = f"{len(lut.models)} networks, {lut.samples.num_rows:,} samples"
        shown.append(Tile(f"{measured_entries}", "blocks measured", detail))
        error = lut.meta.heldout_error
        if error is not None:
            detail = f"mean, on {error.models} held-out networks"
            shown.append(Tile(f"{100 * error.mape:.2f} %", "error of predictions", detail))
        shown.append(Tile(f"{100 * lut.meta.noise_floor:.2f} %", "noise floor", "two loads of one file"))
    return tuple(shown)


def provenance(inputs: ReportInputs) -> tuple[Facts, ...]:
    """Return everything that decides whether another report is comparable."""
    facts = []
    if inputs.lut is not None:
        facts += _lut_facts(inputs.lut)
    if inputs.validation is not None:
        validation = inputs.validation
        rows = (
            ("LUT", validation.lut),
            ("device", validation.device),
            ("new networks", str(len(validation.comparisons))),
            ("mean error", f"{100 * validation.mape:.2f} %"),
            ("reference then / in the LUT", f"{validation.reference_drift:.3f}"),
        )
        facts.append(Facts("Validation", rows))
    if inputs.supernet is not None:
        facts.append(_supernet_facts(inputs.supernet))
    if inputs.search is not None:
        facts.append(_search_facts(inputs.search))
    return tuple(facts)


def _lut_facts(named: NamedLut) -> list[Facts]:
    meta, device = named.lut.meta, named.lut.meta.device
    reference = f"{meta.reference_ms:.3f} ms ({meta.reference_ci_low:.3f} to {meta.reference_ci_high:.3f})"
    where = (
        ("device", f"{device.name} ({device.model})"),
        ("SoC", device.soc or "not known"),
        ("cores, memory", f"{device.cores}, {device.memory_bytes / 2**30:.1f} GiB"),
        ("system", f"{device.os} {device.os_build}".strip()),
        ("runtime", meta.versions.runtime),
        ("exporter", meta.versions.exporter),
        ("agent", meta.versions.agent),
        ("numbers", meta.measured if meta.measured == "measured" else "SIMULATED, no device was measured"),
        *describe_conditions(meta).items(),
        ("measuring began", meta.created),
    )
    what = (
        ("name", named.name),
        ("space", f"{meta.space}, hash {meta.space_hash[:16]}"),
        ("variant", meta.variant),
        ("reference model", f"{meta.reference_id}, {reference}"),
        ("load-to-load spread", f"{100 * meta.load_sd:.2f} %"),
        ("misfit of additivity", f"{100 * meta.misfit_sd:.2f} %"),
        ("lut.json", named.digest),
        ("entries.csv", named.files.entries),
        ("models.csv", named.files.models),
        ("samples.parquet", named.files.samples),
    )
    policy = tuple((name, str(value)) for name, value in sorted(meta.policy.items()))
    return [Facts("Device and tools", where), Facts("LUT", what), Facts("Measurement policy", policy)]


def _supernet_facts(info: CheckpointInfo) -> Facts:
    steps = info.recipe.epochs * info.steps_per_epoch
    rows = (
        ("space, classes", f"{info.space}, {len(info.classes)}"),
        ("images", info.source),
        ("recipe", f"{info.recipe.name}, seed {info.recipe.seed}"),
        ("steps", f"{info.step:,} of {steps:,}" + ("" if info.finished else ", NOT FINISHED")),
        ("last loss", "–" if info.loss is None else f"{info.loss:.3f}"),
        ("teacher", info.teacher or "none"),
        ("began with", info.init or "random weights"),
        ("weights", info.weights_sha256),
        ("data", info.data_digest),
    )
    return Facts("Supernet", rows)


def _search_facts(search: SearchResult) -> Facts:
    budget = f"{search.constraints.latency_ms:g} ms"
    if search.constraints.params is not None:
        budget += f", {search.constraints.params:,} parameters"
    rows = (
        ("space", f"{search.space}, hash {search.space_digest[:16]}"),
        ("budget", budget),
        ("smallest latency within reach", f"{search.coarse.smallest_ms:.3f} ms"),
        ("latencies from", search.price),
        ("accuracies from", search.evaluator),
        *((name, str(value)) for name, value in search.settings.model_dump().items()),
    )
    return Facts("Search", rows)
