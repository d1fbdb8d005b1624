"""Evaluation of trained networks: subnets with inherited weights, detectors and segmentation networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.evaluation_options import DENSE_EVAL, EvalOptions, refuse_options
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.supernets import Notes, check_scope, open_evaluator, trained_alone
from search.dense.training import is_dense_run, read_dense_info
from search.spaces import Arch
from search.supernet.inherit import (
    FINAL_FILE,
    FinalScore,
    InheritedAccuracy,
    Scores,
    record_final,
)
from search.supernet.train.checkpoint import CheckpointInfo


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a network as fractions, None where one does not apply, and the facts that the command prints."""

    arch: Arch
    metrics: dict[str, float | None]
    facts: dict[str, Any]


def evaluate(options: EvalOptions, progress: Progress = silent) -> Evaluation:
    """Evaluate an architecture with inherited weights, or the network of a detection or segmentation training.

    Raises:
        UsageError: an architecture of another space or outside of what was trained; none, but many were trained; an
            option that does not apply to the training.
        InvalidArtifactError: training or images are damaged.
        ExportError: the network can't be exported.
    """
    if is_dense_run(options.supernet):
        return _evaluate_dense(options, progress)
    evaluator = open_evaluator(options.supernet, options.data, final=options.final, progress=progress)
    arch = options.arch or trained_alone(evaluator, options.supernet)
    arch = arch.with_classes(evaluator.data.classes)
    if not options.outside:
        check_scope(arch, options.supernet, evaluator.info)
    evaluator.move_to(options.on)
    scores = _scores(options, evaluator, arch, progress)
    if options.final:
        _record_final(options.supernet, evaluator.info, arch, scores, progress)
    metrics: dict[str, float | None] = {"top1": scores.top1, "top5": scores.top5}
    facts = {"arch": arch.to_json(), "split": evaluator.split_name, **metrics, "params": arch.params()}
    return Evaluation(arch, metrics, facts)


def _scores(options: EvalOptions, evaluator: InheritedAccuracy, arch: Arch, progress: Progress) -> Scores:
    calibration = options.calibration_for(options.seed or 0)
    if options.precision is None:
        if calibration is not None:
            raise UsageError(
                "--calibration decides the ranges of int8; add --precision int8",
                code="calibration_without_int8",
            )
        return evaluator.scores(arch)
    from orchestrator.tasks.evaluators import exported_scores
    from orchestrator.tasks.export import Lowering

    lowering = Lowering(options.runtime, precision=options.precision, fp32=options.keep_fp32)
    return exported_scores(evaluator, arch, lowering, calibration, progress)


def _record_final(
    supernet: Path, info: CheckpointInfo, arch: Arch, scores: Scores, progress: Progress
) -> None:
    """Record a use of the validation images, with a note if other architectures were evaluated before."""
    score = FinalScore(
        arch=arch.to_json(), weights_sha256=info.weights_sha256, top1=scores.top1, top5=scores.top5
    )
    notes = Notes.of(supernet, info.weights_sha256, (FINAL_FILE,), progress)
    if others := record_final(notes.file(FINAL_FILE), score, notes.shared_file(FINAL_FILE)):
        progress(
            Note(
                f"note: {others} other architectures of this supernet were evaluated on the validation set before; "
                "do not choose between them by it, use the search split for that"
            )
        )


def _evaluate_dense(options: EvalOptions, progress: Progress) -> Evaluation:
    from orchestrator.tasks.candidates import dense_candidate
    from orchestrator.tasks.evaluators import DenseEvaluator, check_dense_precision
    from orchestrator.tasks.models import export_all, files_of

    info = read_dense_info(options.supernet)
    refuse_options(options, DENSE_EVAL, f"{options.supernet}, a training for {info.task}")
    check_dense_precision(options.precision or "")
    evaluator = DenseEvaluator.open(info, options.data, on=options.on, progress=progress)
    candidate = dense_candidate(options.supernet)
    if options.precision:
        variant = Variant("executorch", "xnnpack", options.precision)
        artifacts = export_all({"network": candidate.spec(variant)}, 1, progress)
        result = evaluator.program("network", candidate, files_of(artifacts)["network"])
        how = f"as exported for XNNPACK in {options.precision}"
    else:
        result, how = evaluator.network("network", candidate), "in PyTorch"
    scenes = evaluator.scenes
    facts = {
        "task": info.task,
        "arch": info.arch,
        "data": f"{len(scenes.validation)} validation images of {scenes.title}",
        "judged": how,
        **result.metrics,
        "params": info.network.params(),
    }
    return Evaluation(info.network, dict(result.metrics), facts)
