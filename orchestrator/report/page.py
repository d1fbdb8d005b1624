"""The report's page: one self-contained HTML file without scripts, fonts or requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from luts.format.files import storage_errors, write_atomically
from orchestrator.journal.conditions import describe_conditions
from orchestrator.measure.validate import Validation
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
    meta = inputs.lut.lut.meta if inputs.lut else None
    return environment.get_template("report.html").render(
        title=_title(inputs),
        subtitle=", ".join(filter(None, (meta.device.model, meta.device.soc, meta.variant))) if meta else "",
        day=meta.created[:10] if meta else "",
        simulated=inputs.simulated,
        tiles=list(_tiles(inputs)),
        sections=[section for make in SECTIONS if (section := make(inputs)) is not None],
        contradictions=inputs.contradictions,
        absent=inputs.absent,
        facts=_provenance(inputs),
    )


def write_report(path: Path, inputs: ReportInputs) -> Path:
    """Write the page, all or nothing, and return its path. Raises StorageError."""
    html = render(inputs)
    with storage_errors(f"report not written to {path}", "give another file with --output"):
        write_atomically(path, html.encode())
    return path


def _title(inputs: ReportInputs) -> str:
    if inputs.lut is not None:
        meta = inputs.lut.lut.meta
        return f"{meta.space} on {meta.device.name}"
    if inputs.search is not None:
        return f"Search in {inputs.search.space}"
    return "Training" if inputs.curves and inputs.supernet is None else "A run without a LUT"


def _tiles(inputs: ReportInputs) -> Iterator[tuple[str, str, str]]:
    """Yield headline numbers: value, name and detail."""
    winner, measured = inputs.chosen, inputs.winner_measured
    if inputs.search is not None and winner is not None:
        value, detail = winner.accuracy, inputs.search.own_objective or "images held out of training"
        name = f"winner's {inputs.search.value_name}"
        if inputs.finals is not None:
            value, detail, name = inputs.finals.winner.top1[0], "trained alone", "winner's accuracy"
        yield f"{100 * value:.1f} %", name, detail
        budget = f"budget {inputs.search.constraints.latency_ms:.4g} ms"
        if measured is None:
            yield f"{winner.latency_ms:.3f} ms", "winner's latency", f"predicted, {budget}"
        else:
            detail = f"predicted {measured.predicted_ms:.3f}, {budget}"
            yield f"{measured.measured_ms:.3f} ms", "winner, measured", detail
    if inputs.lut is not None:
        lut = inputs.lut.lut
        measured_entries = sum(entry.method != "prior" for entry in lut.entries)
        networks = f"{len(lut.models)} networks, {lut.samples.num_rows:,} samples"
        yield f"{measured_entries}", "blocks measured", networks
        error = lut.meta.heldout_error
        if error is not None:
            yield (
                f"{100 * error.mape:.2f} %",
                "error of predictions",
                f"mean, on {error.models} held-out networks",
            )
        yield f"{100 * lut.meta.noise_floor:.2f} %", "noise floor", "two loads of one file"


Facts = dict[str, str]


def _provenance(inputs: ReportInputs) -> dict[str, Facts]:
    """Return everything that decides whether another report is comparable, in groups by their title."""
    groups: dict[str, Facts] = {}
    if inputs.lut is not None:
        meta = inputs.lut.lut.meta
        groups["Device and tools"] = _device_facts(inputs.lut)
        groups["LUT"] = _lut_facts(inputs.lut)
        groups["Measurement policy"] = {name: str(value) for name, value in sorted(meta.policy.items())}
    if inputs.validation is not None:
        groups["Validation"] = _validation_facts(inputs.validation)
    if inputs.supernet is not None:
        groups["Supernet"] = _supernet_facts(inputs.supernet)
    if inputs.search is not None:
        groups["Search"] = _search_facts(inputs.search)
    return groups


def _device_facts(named: NamedLut) -> Facts:
    meta, device = named.lut.meta, named.lut.meta.device
    return {
        "device": f"{device.name} ({device.model})",
        "SoC": device.soc or "not known",
        "cores, memory": f"{device.cores}, {device.memory_bytes / 2**30:.1f} GiB",
        "system": f"{device.os} {device.os_build}".strip(),
        "runtime": meta.versions.runtime,
        "exporter": meta.versions.exporter,
        "agent": meta.versions.agent,
        "numbers": meta.measured if meta.measured == "measured" else "SIMULATED, no device was measured",
        **describe_conditions(meta),
        "measuring began": meta.created,
    }


def _lut_facts(named: NamedLut) -> Facts:
    meta = named.lut.meta
    reference = f"{meta.reference_ms:.3f} ms ({meta.reference_ci_low:.3f} to {meta.reference_ci_high:.3f})"
    return {
        "name": named.name,
        "space": f"{meta.space}, hash {meta.space_hash[:16]}",
        "variant": meta.variant,
        "reference model": f"{meta.reference_id}, {reference}",
        "load-to-load spread": f"{100 * meta.load_sd:.2f} %",
        "misfit of additivity": f"{100 * meta.misfit_sd:.2f} %",
        "lut.json": named.digest,
        "entries.csv": named.files.entries,
        "models.csv": named.files.models,
        "samples.parquet": named.files.samples,
    }


def _validation_facts(validation: Validation) -> Facts:
    return {
        "LUT": validation.lut,
        "device": validation.device,
        "new networks": str(len(validation.comparisons)),
        "mean error": f"{100 * validation.mape:.2f} %",
        "reference then / in the LUT": f"{validation.reference_drift:.3f}",
    }


def _supernet_facts(info: CheckpointInfo) -> Facts:
    steps = info.recipe.epochs * info.steps_per_epoch
    return {
        "space, classes": f"{info.space}, {len(info.classes)}",
        "images": info.source,
        "recipe": f"{info.recipe.name}, seed {info.recipe.seed}",
        "steps": f"{info.step:,} of {steps:,}" + ("" if info.finished else ", NOT FINISHED"),
        "last loss": "–" if info.loss is None else f"{info.loss:.3f}",
        "teacher": info.teacher or "none",
        "began with": info.init or "random weights",
        "weights": info.weights_sha256,
        "data": info.data_digest,
    }


def _search_facts(search: SearchResult) -> Facts:
    budget = f"{search.constraints.latency_ms:g} ms"
    if search.constraints.params is not None:
        budget += f", {search.constraints.params:,} parameters"
    return {
        "space": f"{search.space}, hash {search.space_digest[:16]}",
        "budget": budget,
        "smallest latency within reach": f"{search.coarse.smallest_ms:.3f} ms",
        "latencies from": search.price,
        "accuracies from": search.evaluator,
        **{name: str(value) for name, value in search.settings.model_dump().items()},
    }
