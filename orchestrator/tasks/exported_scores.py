"""Accuracy of a subnet as it is exported: the program itself over the held-out images, see `guess_with_program`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.program import guess_with_program
from orchestrator.export.artifacts.spec import QUANTISED, Variant
from orchestrator.tasks.export import Lowering
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import as_named
from orchestrator.tasks.progress import Progress
from orchestrator.tasks.quantization import Calibration, calibrated
from orchestrator.winner.card import save_weights, weighted
from search.spaces import Arch
from search.supernet.inherit import InheritedAccuracy, Scores


def as_exported(
    lowering: Lowering | None, calibration: Calibration | None, progress: Progress
) -> Callable[[InheritedAccuracy, Arch], Scores]:
    """How `evaluate` is to judge: in PyTorch without a lowering, else what is exported by it.

    Raises:
        UsageError: calibration images for a precision without int8, or a precision that there is not.
    """
    if calibration is not None and (lowering is None or lowering.precision not in QUANTISED):
        raise UsageError("--calibration decides the ranges of int8; add --precision int8")
    if lowering is None:
        return InheritedAccuracy.scores
    Variant(lowering.runtime, "all" if lowering.runtime == "coreml" else "xnnpack", lowering.precision)
    return lambda evaluator, arch: exported_scores(evaluator, arch, lowering, calibration, progress)


def exported_scores(
    evaluator: InheritedAccuracy,
    arch: Arch,
    lowering: Lowering,
    calibration: Calibration | None,
    progress: Progress,
) -> Scores:
    """Top-1 and top-5 of the exported program on the evaluator's images.

    Raises:
        UsageError: a runtime other than ExecuTorch and Core ML, or calibration images that there are not.
        ExportError: it can't be exported.
    """
    if lowering.runtime not in ("executorch", "coreml"):
        raise UsageError(
            f"models of {lowering.runtime} are not judged; choose --runtime executorch or coreml"
        )
    with tempfile.TemporaryDirectory() as folder:
        spec = weighted(lowering.spec(as_named(arch)), save_weights(evaluator, arch, Path(folder)))
        if calibration is not None:
            data = evaluator.data
            spec = calibrated(spec, calibration, Path(folder), split=(data.seed, data.fraction))
        program = export_all({arch.digest: spec}, 1, progress)[arch.digest]
    data, held_out = evaluator.data, evaluator.held_out
    images = ImageSet(data.source.name, data.source.digest, held_out, data.side)
    guesses = guess_with_program(program.path, images)
    labels = data.source.labels[held_out]
    return Scores(guesses.accuracy(labels).share, guesses.accuracy(labels, among=5).share)
