"""Networks and model files in one table: accuracy as exported, latency, size and memory."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from luts.format.errors import InvalidArtifactError
from luts.format.files import check_folder, read_bytes, write_json
from luts.format.table import Column, Table, filled, write_table
from orchestrator.agent.device import threads_by_default
from orchestrator.agent.runtime import read_pte
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import QUANTISED
from orchestrator.tasks.candidates import Candidate, dense_candidates, read_candidates, split_of
from orchestrator.tasks.evaluate import (
    AccuracyEvaluator,
    DenseEvaluator,
    Evaluator,
    check_dense_precision,
    evaluate_row,
)
from orchestrator.tasks.evaluation_options import DENSE_COMPARE, CompareOptions, refuse_options
from orchestrator.tasks.measure import measure_specs
from orchestrator.tasks.measured import PERCENTILE_COLUMNS, percentile_note
from orchestrator.tasks.models import export_possible, files_of, user_model_files
from orchestrator.tasks.networks import count_networks
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.quantization import RANDOM_RANGES, calibrated
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile
from search.dense.training import read_dense_info

FORMAT = 1

MAX_BYTES = 64 << 20
"""Bytes of a cached measurement: thousands of models."""


_MIB = 2**20

_COLUMNS = (
    Column("model", "model"),
    Column("top1", "top-1 as exported", 2, percent=True),
    Column("top1_low", "95 % low", 2, percent=True, spare=3),
    Column("top1_high", "high", 2, percent=True, spare=3),
    Column("top5", "top-5", 2, percent=True, spare=2),
    Column("top5_low", "95 % low", 2, percent=True, spare=8),
    Column("top5_high", "high", 2, percent=True, spare=8),
    Column("pytorch_top1", "in PyTorch", 2, percent=True, spare=1),
    Column("pytorch_top5", "top-5", 2, percent=True, spare=8),
    Column("map", "mAP as exported", 2, percent=True),
    Column("map50", "mAP 50", 2, percent=True, spare=2),
    Column("map75", "mAP 75", 2, percent=True, spare=6),
    Column("pytorch_map", "in PyTorch", 2, percent=True, spare=1),
    Column("miou", "mIoU as exported", 2, percent=True),
    Column("pixel_accuracy", "pixel accuracy", 2, percent=True, spare=2),
    Column("pytorch_miou", "in PyTorch", 2, percent=True, spare=1),
    Column("agreement", "same prediction", 2, percent=True, spare=4),
    Column("ms", "ms", 3),
    Column("ci_low", "95 % low", 3, spare=2),
    Column("ci_high", "high", 3, spare=2),
    *PERCENTILE_COLUMNS,
    Column("load_ms", "load ms", 2, spare=4),
    Column("pareto", "best"),
    Column("file_mib", "file MiB", 2, spare=1),
    Column("peak_mib", "peak memory MiB", 1, spare=2),
    Column("planned_mib", "activations MiB", 2, spare=6),
    Column("params", "parameters", counted=True, spare=3),
    Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=5),
    Column("all_macs", "all MACs", counted=True, spare=7),
)


@dataclass(frozen=True)
class Comparison:
    """Accuracy, latency and size of networks.

    Attributes:
        target: The device as the user named it; empty where nothing was measured.
        data: The images; None without an evaluation.
        setup: What was measured on; None where nothing was measured.
    """

    target: str
    rows: tuple[dict[str, Any], ...]
    data: Mapping[str, Any] | None
    setup: Mapping[str, Any] | None
    failures: Mapping[str, str]

    @property
    def simulated(self) -> bool:
        """Whether latencies are simulated."""
        return bool(self.setup and self.setup["device"]["simulated"])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "format": FORMAT,
            "data": self.data,
            "measured_on": self.setup,
            "models": list(self.rows),
            "failures": dict(self.failures),
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the table, and what explains it."""
        rows = [_in_mib(row) for row in self.rows]
        titles = []
        if self.data:
            titles.append("{images} {split} images of {source}".format(**self.data))
        if self.setup:
            warning = ", SIMULATED: not measured on any device" if self.simulated else ""
            titles.append(f"{self.target}, {self.setup['variant']}{warning}")
        yield Table("; ".join(titles), filled(_COLUMNS, rows), rows)
        yield from self._notes(rows)

    def _notes(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        if self.data and self.setup:
            yield "best: no other is at least as accurate and as fast, and better in one"
        if self.data and self.data.get("task"):
            yield "latency is of the network alone, without decoding, suppression and resizing of masks"
        elif self.data:
            yield "intervals of accuracies are Wilson's, of the choice of images alone"
        for row in rows:
            if row.get("accuracy_note"):
                yield f"{row['model']} is not evaluated as exported: {row['accuracy_note']}"
        if in_pytorch := [row["model"] for row in rows if str(row.get("judged_by")).startswith("PyTorch")]:
            yield (
                f"{', '.join(in_pytorch)}: the Core ML program was evaluated in PyTorch, weights and int8 as in "
                "it, sums in fp32; Core ML itself, whose sums are fp16, runs on Apple devices only"
            )
        if any(row["peak_mib"] for row in rows):
            yield (
                "peak memory is the agent's with the model alone, minus what it had before; if only a larger "
                "model's peak is known, what it holds after running"
            )
        if measured := [row for row in rows if row.get("ms") is not None]:
            yield percentile_note(measured)

    def write(self, folder: Path, progress: Progress) -> None:
        """Write the table as JSON and CSV, and a picture where there are latencies and top-1."""
        write_table(folder / "compare.json", self.to_dict())
        write_table(folder / "compare.csv", self.to_dict(), "models")
        data, setup = self.data, self.setup
        if not any(row["pareto"] is not None for row in self.rows) or not data or not setup:
            return
        if data.get("task"):  # the picture's axis is top-1
            return
        from orchestrator.report.draw import write_figure
        from orchestrator.report.figures import pareto_figure

        device = f"{setup['device']['model']}, {setup['variant']}"
        images = f"{data['images']} images of {data['source'].partition(':')[0]}"
        drawn = pareto_figure(self.rows, device, images, self.simulated)
        for path in (folder / "compare.png", folder / "compare.svg"):
            write_figure(path, drawn)
            progress(Note(f"picture: {path}"))


def _in_mib(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its bytes in MiB."""
    peak = row.get("peak_memory_bytes") or row.get("memory_bytes")
    sizes = {"file_mib": row["file_bytes"], "planned_mib": row["planned_bytes"], "peak_mib": peak}
    return {**row, **{name: value and value / _MIB for name, value in sizes.items()}}


def compare_networks(options: CompareOptions, progress: Progress = silent) -> Comparison:
    """Evaluate and measure networks and model files of one task.

    Finished work is cached in the output folder, where the same call resumes.

    Raises:
        UsageError: nothing to compare, a network without weights, networks of several tasks, classes that do not
            fit, or what `measure_specs` raises.
        InvalidArtifactError: a model, weights or an image is damaged; finished work is cached.
    """
    options.check()
    if options.output is not None:
        check_folder(options.output)
    with tempfile.TemporaryDirectory() as scratch, user_model_files(options.files) as given:
        evaluator, candidates = _candidates(options, Path(scratch), progress)
        specs = _specs(options, candidates, Path(scratch), progress)
        if evaluator:
            evaluator.check(specs)
        artifacts, failures = export_possible(specs, options.workers, progress) if specs else ({}, {})
        models = files_of(artifacts) | given
        rows = _rows_on_paper(candidates, specs, models, progress)
        if evaluator:
            for name, row in rows.items():
                row |= evaluate_row(evaluator, name, candidates.get(name), specs.get(name), models[name])
        setup = None
        if options.target.device:
            able = {name: candidate for name, candidate in candidates.items() if name in models}
            setup, latencies, unmeasured = _latencies(able, specs, models, options, progress)
            failures = {**failures, **unmeasured}
            for name, row in rows.items():
                row |= latencies.get(name, {"ms": None})
    table = tuple(rows.values())
    for row, best in zip(table, pareto(table), strict=True):
        row["pareto"] = best
    for name, reason in failures.items():
        progress(Note(f"{name}: {reason}"))
    comparison = Comparison(
        options.target.device, table, evaluator.describe() if evaluator else None, setup, failures
    )
    if options.output is not None:
        comparison.write(options.output, progress)
    return comparison


def _candidates(
    options: CompareOptions, scratch: Path, progress: Progress
) -> tuple[Evaluator | None, dict[str, Candidate]]:
    """Return the networks and, where there are images, their task's evaluator."""
    dense = dense_candidates(options.networks)
    if dense:
        info = read_dense_info(next(path for candidate in dense.values() if (path := candidate.run)))
        refuse_options(options, DENSE_COMPARE, f"networks for {info.task}")
        check_dense_precision(_export_target(options.target).variant.precision)
        if options.data is None:
            return None, dense
        processes = options.processes or threads_by_default()
        return DenseEvaluator.open(info, options.data, processes=processes, progress=progress), dense
    split = split_of(options.networks, options.supernet)
    evaluator = None
    if options.data is not None:
        evaluator = AccuracyEvaluator.open(options, options.output, progress, split)
    candidates = read_candidates(
        options.networks,
        (options.output or scratch) / "weights",
        supernet=options.supernet,
        resolution=options.resolution,
        images=evaluator.images if evaluator else None,
        progress=progress,
    )
    return evaluator, candidates


def _specs(
    options: CompareOptions, candidates: Mapping[str, Candidate], scratch: Path, progress: Progress
) -> dict[str, ExportSpec]:
    """Return how the networks are exported, with calibration images if there are any."""
    variant = _export_target(options.target).variant
    specs = {name: each.spec(variant, options.keep_fp32) for name, each in candidates.items()}
    calibration = options.calibration_for(options.seed)
    if calibration is None:
        if specs and variant.precision in QUANTISED:
            progress(Note(RANDOM_RANGES))
        return specs
    split = split_of(options.networks, options.supernet)
    return {
        name: calibrated(spec, calibration, scratch, candidates[name].normalization, split)
        for name, spec in specs.items()
    }


def _export_target(target: Target) -> Target:
    """Return what models are exported for: this machine without a device, and for a simulated one."""
    target = replace(target, device=target.device or "host")
    return Target("host") if target.variant.is_simulated else target


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
    """Return for each row whether no other is as accurate and as fast, and better in one; None without either."""

    def place(row: Mapping[str, Any]) -> tuple[float, float] | None:
        accuracy = accuracy_of(row)
        return None if accuracy is None or row.get("ms") is None else (-accuracy, row["ms"])

    places = [place(row) for row in rows]
    known = [other for other in places if other]
    return [
        None
        if own is None
        else not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in known)
        for own in places
    ]


def accuracy_of(row: Mapping[str, Any]) -> float | None:
    """Return top-1, mAP or mIoU as exported, or in PyTorch where the file does not run here; None without any."""
    names = (f"{prefix}{metric}" for prefix in ("", "pytorch_") for metric in ("top1", "map", "miou"))
    return next((row[name] for name in names if row.get(name) is not None), None)


def _rows_on_paper(
    candidates: Mapping[str, Candidate],
    specs: Mapping[str, ExportSpec],
    models: Mapping[str, ModelFile],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Return what is known of each model before it runs."""
    exported = {name: candidates[name].network for name in specs if name in models}
    counts = count_networks(exported, specs, progress)
    unknown = dict.fromkeys(("params", "conv_linear_macs", "all_macs"))
    return {
        name: {
            "model": name,
            "sha256": file.sha256,
            **(asdict(counts[name]) if name in counts else unknown),
            "file_bytes": file.path.stat().st_size,
            "planned_bytes": _planned(file.path),
        }
        for name, file in models.items()
    }


def _planned(path: Path) -> int | None:
    try:
        return read_pte(path).planned_bytes
    except ValueError:
        return None


_ON_PAPER = {"model", "sha256", "params", "conv_linear_macs", "all_macs"}


def _latencies(
    candidates: Mapping[str, Candidate],
    specs: Mapping[str, ExportSpec],
    models: Mapping[str, ModelFile],
    options: CompareOptions,
    progress: Progress,
) -> tuple[Mapping[str, Any], dict[str, dict[str, Any]], Mapping[str, str]]:
    """Return setup, cells by model and failures of a measurement, or of the same one cached before.

    Raises:
        InvalidArtifactError: the cached measurement is damaged.
        BlocktimeError: as `measure_specs`.
    """
    cache = latency_cache(options, models)
    if cache and cache.exists():
        progress(Note(f"measured before, in {cache}"))
        try:
            document = json.loads(read_bytes(cache, MAX_BYTES, "remove it"))
            return _cells(document)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArtifactError(
                f"{cache}: not a measurement ({error}); remove it", code="damaged_cache"
            ) from error
    document = measure_specs(
        {name: candidate.network for name, candidate in candidates.items()},
        {name: specs[name] for name in candidates},
        options.target,
        options,
        files=options.files,
        memory=True,
        progress=progress,
    ).to_dict()
    if cache:
        write_json(cache, document)
    return _cells(document)


def latency_cache(options: CompareOptions, models: Mapping[str, ModelFile]) -> Path | None:
    """Return the cache file of a measurement, named after everything that decides it; None without a folder."""
    if options.output is None:
        return None
    target = options.target
    digests = {name: file.sha256 for name, file in models.items()}
    identity: list[Any] = [target.device, target.variant.name, options.seed, options.self_test, digests]
    access = [target.agent, list(target.allow), target.fixed_performance, options.pace_us]
    if access != ["python", [], False, 0]:  # the defaults were not part of the name in earlier versions
        identity.append(access)
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return options.output / "latency" / f"{digest[:24]}.json"


def _cells(
    document: Mapping[str, Any],
) -> tuple[Mapping[str, Any], dict[str, dict[str, Any]], Mapping[str, str]]:
    setup = {name: document[name] for name in ("device", "variant", "noise_floor", "reference")}
    rows = {
        row["model"]: {name: value for name, value in row.items() if name not in _ON_PAPER}
        for row in document["models"]
    }
    return setup, rows, document["failures"]
