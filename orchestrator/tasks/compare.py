"""Networks and model files in one table: accuracy as exported beside milliseconds, size and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.files import check_folder
from orchestrator.agent.runtime import read_pte
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import QUANTISED, Variant
from orchestrator.tasks.candidates import Candidate, read_candidates, split_of
from orchestrator.tasks.judge import Question, judge_model, open_judge
from orchestrator.tasks.latencies import Timing, latencies_of
from orchestrator.tasks.models import export_possible, files_of, user_model_files
from orchestrator.tasks.networks import count_networks
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.quantization import RANDOM_RANGES, Calibration, calibrated
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile

FORMAT = 1


@dataclass(frozen=True)
class Compared:
    """The table; `setup` is that of the measurement, None where nothing was measured."""

    rows: tuple[dict[str, Any], ...]
    data: Mapping[str, Any] | None
    setup: Mapping[str, Any] | None
    failures: Mapping[str, str]

    @property
    def simulated(self) -> bool:
        """Whether its milliseconds are made up."""
        return bool(self.setup and self.setup["device"]["simulated"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "format": FORMAT,
            "data": self.data,
            "measured_on": self.setup,
            "models": list(self.rows),
            "failures": dict(self.failures),
        }


def compare_networks(
    networks: Sequence[str],
    question: Question | None = None,
    timing: Timing | None = None,
    *,
    files: Sequence[Path] = (),
    supernet: Path | None = None,
    resolution: int | None = None,
    lowered_for: Target | None = None,
    fp32: Sequence[str] = (),
    calibration: Calibration | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Compared:
    """Judge and measure networks and model files; what is done is kept in `folder`, where the same call goes on.

    Args:
        networks: Each `NETWORK[:WEIGHTS]`, as of `read_candidates`.
        question: The images; without any nothing is judged.
        timing: The device; without one nothing is measured.
        files: Models that are exported already: `.pte`, or `.mlpackage`, a folder.
        supernet: Folder of the training that has the weights of architectures without a text for them.
        resolution: Side of the input image for all networks; their own by default.
        lowered_for: For what networks are exported where nothing is measured; the host by default.
        fp32: With precision `mixed` what stays fp32, as of `stays_fp32`.
        calibration: Images that decide int8's ranges; seeded random inputs by default, which a note says.
        folder: Where weights, guesses and measurements are kept; nowhere by default.
        workers: Exporting processes; all cores by default.
        progress: Told of every export, evaluation and batch.

    Raises:
        UsageError: nothing to compare, a network without weights, classes that do not fit, or what
            `measure_networks` raises.
        InvalidArtifactError: a model, weights or an image is damaged, which it names; what is done is kept.
    """
    question = question or Question()
    if not networks and not files:
        raise UsageError("nothing to compare; give --model (or --arch) or --artifact")
    if timing is None and question.data is None:
        raise UsageError("nothing to compare by; give --data, --device or both")
    if folder is not None:
        check_folder(folder)
    with tempfile.TemporaryDirectory() as scratch, user_model_files(files) as given:
        split = split_of(networks, supernet)
        judge = open_judge(question, folder, progress, split)
        candidates = read_candidates(
            networks,
            (folder or Path(scratch)) / "weights",
            supernet=supernet,
            resolution=resolution,
            images=judge.images if judge else None,
            progress=progress,
        )
        variant = exported_variant(timing.target if timing else lowered_for or Target("host"))
        specs = {name: candidate.spec(variant, fp32) for name, candidate in candidates.items()}
        if judge:
            judge.check(specs)
        if calibration:
            specs = {
                name: calibrated(spec, calibration, Path(scratch), candidates[name].normalization, split)
                for name, spec in specs.items()
            }
        elif specs and variant.precision in QUANTISED:
            progress(Note(RANDOM_RANGES))
        artifacts, failures = export_possible(specs, workers, progress) if specs else ({}, {})
        models = files_of(artifacts) | given
        rows = on_paper(candidates, specs, models, progress)
        if judge:
            for name, row in rows.items():
                row |= judge_model(judge, name, candidates.get(name), specs.get(name), models[name])
        latencies = None
        if timing:
            latencies = latencies_of(candidates, specs, files, models, timing, folder, workers, progress)
            failures = {**failures, **latencies.failures}
            for name, row in rows.items():
                row |= latencies.rows.get(name, {"ms": None})
    table = tuple(rows.values())
    for row, best in zip(table, pareto(table), strict=True):
        row["pareto"] = best
    on = latencies.setup if latencies else None
    return Compared(table, judge.describe() if judge else None, on, failures)


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
    """Whether no other row is as accurate and as fast, and better in one; None of rows that lack either."""

    def place(row: Mapping[str, Any]) -> tuple[float, float] | None:
        share = accuracy_of(row)
        return None if share is None or row.get("ms") is None else (-share, row["ms"])

    places = [place(row) for row in rows]
    known = [other for other in places if other]
    return [
        None
        if own is None
        else not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in known)
        for own in places
    ]


def accuracy_of(row: Mapping[str, Any]) -> float | None:
    """Top-1, mAP or mIoU as exported, or of PyTorch where the file does not run here; None where not judged."""
    names = (f"{prefix}{figure}" for prefix in ("", "pytorch_") for figure in ("top1", "map", "miou"))
    return next((row[name] for name in names if row.get(name) is not None), None)


def exported_variant(target: Target) -> Variant:
    """How models are exported: for a simulated device, which runs no files, as the host would run them."""
    return Target("host").variant if target.variant.is_simulated else target.variant


def on_paper(
    candidates: Mapping[str, Candidate],
    specs: Mapping[str, ExportSpec],
    models: Mapping[str, ModelFile],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """What is known of each model before it runs."""
    able = {name: candidates[name].network for name in specs if name in models}
    counts = count_networks(able, specs, progress)
    rows = {}
    for name, file in models.items():
        counted = counts.get(name)
        rows[name] = {
            "model": name,
            "sha256": file.sha256,
            "params": counted.params if counted else None,
            "conv_linear_macs": counted.conv_linear_macs if counted else None,
            "all_macs": counted.all_macs if counted else None,
            "file_bytes": file.path.stat().st_size,
            "planned_bytes": _planned(file.path),
        }
    return rows


def _planned(path: Path) -> int | None:
    try:
        return read_pte(path).planned_bytes
    except ValueError:
        return None
