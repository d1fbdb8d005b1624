"""Precisions of one exported network: accuracy on the same images, latency, size."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import Proportion, normal_quantile
from luts.format.errors import UsageError
from orchestrator.accuracy.predictions import ImageSet
from orchestrator.accuracy.program import predict_with_program
from orchestrator.tasks.evaluation_options import (
    CalibrationOptions,
    SensitivityOptions,
)
from orchestrator.tasks.export import ExportCommand, Lowering, export_networks
from orchestrator.tasks.sensitivity import measure_sensitivity
from orchestrator.tasks.train import train_qat
from orchestrator.tasks.train_options import QatOptions
from orchestrator.tasks.trained import Trained
from search.spaces import Arch
from search.supernet.data.images import split_source
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import only_arch
from search.supernet.train.checkpoint import load_supernet
from tools.studies.shared import Options
from tools.tables import Interval, Tables, log

MIX_LOSS = 0.005
"""Top-1 that the mix may lose on the images on which it is found."""
CORE_ML = "Core ML's int8, ranges of images"


@dataclass(frozen=True)
class Program:
    """An exported program and which images it classifies correctly, (N,) bool."""

    path: Path
    payload_bytes: int
    correct: np.ndarray


def main(options: Options) -> Tables:
    """Export, fine-tune, and run every program on the same validation images.

    Top-1 in percent, differences to fp32 paired image by image. The Core ML package is evaluated in PyTorch.
    """
    if options.data is None or options.supernet is None:
        raise UsageError(
            "this study needs a trained network and its images; add --supernet DIR and --data",
            code="no_supernet",
        )
    supernet, info = load_supernet(options.supernet)
    arch = only_arch(info.recipe, supernet.space)
    if arch is None:
        raise UsageError(
            f"{options.supernet} holds many networks; train one with `bench train --arch`",
            code="many_networks",
        )
    arch = arch.with_classes(len(info.classes))
    with tempfile.TemporaryDirectory() as scratch:
        kinds = _lowerings(arch, options.data, options.supernet, options, Path(scratch))
        programs = {kind: _program(arch, options, *each) for kind, each in kinds.items()}
    named = {str(program.path): kind for kind, program in programs.items() if kind != CORE_ML}
    latencies = {
        named[row.model]: Interval(row.ms, row.ci_low, row.ci_high)
        for row in options.measure(files=tuple(map(Path, named)))
    }
    exact = programs["fp32"].correct
    rows = []
    for kind, program in programs.items():
        top1 = Proportion(int(program.correct.sum()), len(exact))
        rows.append(
            {
                "program": kind,
                "top-1": Interval(*(100 * value for value in (top1.share, *top1.interval))),
                "difference": None if kind == "fp32" else paired_difference(program.correct, exact),
                "ms": latencies.get(kind),
                "bytes": program.payload_bytes,
                "blocks in fp32": ", ".join(kinds[kind][0].fp32),
            }
        )
    return {"Precision": rows}


def paired_difference(correct: np.ndarray, before: np.ndarray) -> Interval:
    """Return the difference of accuracies in points, with the 95 % interval of the mean of paired differences."""
    differences = 100 * (correct.astype(float) - before.astype(float))
    half = normal_quantile(0.975) * float(differences.std(ddof=1)) / len(differences) ** 0.5
    mean = float(differences.mean())
    return Interval(mean, mean - half, mean + half)


def _lowerings(
    arch: Arch, data: str, supernet: Path, options: Options, scratch: Path
) -> dict[str, tuple[Lowering, Trained, CalibrationOptions]]:
    """Fine-tune for int8 and choose the blocks of the mix; return how every program is exported."""
    inherited = Trained(supernet=supernet, data=data)
    random, images = (
        CalibrationOptions(),
        CalibrationOptions(calibration=data, calibration_images=options.pick(128, 8)),
    )
    qat = QatOptions(
        arch=arch,
        data=data,
        output=scratch / "qat",
        recipe="finetune",
        epochs=options.epochs,
        batch_size=128,
        init=f"supernet:{supernet}",
    )
    tuned = Trained(file=train_qat(qat, log).weights)
    sensitivity = SensitivityOptions(
        data=data,
        supernet=supernet,
        images=options.pick(5000, 40),
        calibration_images=options.pick(128, 8),
        within=100 * MIX_LOSS,
    )
    kept = measure_sensitivity(sensitivity, {"network": arch}, log).recipe.fp32
    int8 = Lowering(precision="int8")
    kinds = {
        "fp32": (Lowering(), inherited, random),
        "fp16": (Lowering(precision="fp16"), inherited, random),
        "int8, ranges of random inputs": (int8, inherited, random),
        "int8, ranges of images": (int8, inherited, images),
        "int8 after fine-tuning for it": (int8, tuned, images),
        CORE_ML: (Lowering("coreml", precision="int8"), inherited, images),
    }
    if kept:
        kinds["mixed, ranges of images"] = (Lowering(precision="mixed", fp32=kept), inherited, images)
    return kinds


def _program(
    arch: Arch, options: Options, lowering: Lowering, trained: Trained, ranges: CalibrationOptions
) -> Program:
    """Export a program and run it on the validation images."""
    command = ExportCommand(
        networks={"network": arch}, lowering=lowering, trained=trained, calibration=ranges, workers=1
    )
    (artifact,) = export_networks(command, log).values()
    source = open_source(options.images)
    images = ImageSet(
        options.images, source.digest, split_source(source).validation[: options.pick(10_000, 40)]
    )
    predictions = predict_with_program(artifact.path, images, workers=options.jobs)
    return Program(artifact.path, artifact.payload_bytes, predictions.correct(images.labels))
