"""Top-1 and latency of a network in fp32, fp16, int8 in three ways and a mix; top-1 of its int8 Core ML package."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import Proportion, normal_quantile
from luts.format.errors import UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.program import predict_with_program
from orchestrator.tasks.evaluation_options import CalibrationOptions, SensitivityOptions
from orchestrator.tasks.export import ExportCommand, Lowering, export_networks
from orchestrator.tasks.measure import MeasureCommand, measure_networks
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

IMAGES, QUICK_IMAGES = 10_000, 40
MIX_IMAGES, MIX_LOSS = 5_000, 0.005
"""Images on which the mix is found, and the top-1 that it may lose there."""
CALIBRATION_IMAGES, QUICK_CALIBRATION_IMAGES = 128, 8
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
    with tempfile.TemporaryDirectory() as scratch:
        programs, kept = _programs(arch.with_classes(len(info.classes)), options, Path(scratch))
    latencies = _latencies(programs, options)
    exact = programs["fp32"].correct
    rows = []
    for kind, program in programs.items():
        top1 = Proportion(int(program.correct.sum()), len(exact))
        low, high = top1.interval
        rows.append(
            {
                "program": kind,
                "top-1": Interval(100 * top1.share, 100 * low, 100 * high),
                "difference": None if kind == "fp32" else paired_difference(program.correct, exact),
                "ms": latencies.get(kind),
                "bytes": program.payload_bytes,
            }
        )
    return {"Precision": rows, "Mix": [{"blocks in fp32": ", ".join(kept)}]}


def paired_difference(correct: np.ndarray, before: np.ndarray) -> Interval:
    """Return the difference of accuracies in points, with the 95 % interval of the mean of paired differences."""
    differences = 100 * (correct.astype(float) - before.astype(float))
    half = normal_quantile(0.975) * float(differences.std(ddof=1)) / len(differences) ** 0.5
    mean = float(differences.mean())
    return Interval(mean, mean - half, mean + half)


def _programs(arch: Arch, options: Options, scratch: Path) -> tuple[dict[str, Program], tuple[str, ...]]:
    """Return every program by name, and the blocks that the mix keeps in fp32."""
    assert options.data is not None
    count = QUICK_CALIBRATION_IMAGES if options.quick else CALIBRATION_IMAGES
    calibration = CalibrationOptions(calibration=options.data, calibration_images=count)
    inherited = Trained(supernet=options.supernet, data=options.data)
    qat = QatOptions(
        arch=arch,
        data=options.data,
        output=scratch / "qat",
        recipe="finetune",
        epochs=options.epochs,
        batch_size=128,
        init=f"supernet:{options.supernet}",
    )
    tuned = train_qat(qat, log)
    sensitivity = SensitivityOptions(
        data=options.data,
        supernet=options.supernet,
        images=QUICK_IMAGES if options.quick else MIX_IMAGES,
        calibration_images=count,
        within=100 * MIX_LOSS,
    )
    kept = measure_sensitivity(sensitivity, {"network": arch}, log).recipe.fp32
    int8 = Lowering(precision="int8")
    kinds: dict[str, tuple[Lowering, Trained, CalibrationOptions | None]] = {
        "fp32": (Lowering(), inherited, None),
        "fp16": (Lowering(precision="fp16"), inherited, None),
        "int8, ranges of random inputs": (int8, inherited, None),
        "int8, ranges of images": (int8, inherited, calibration),
        "int8 after fine-tuning for it": (int8, Trained(file=tuned.weights), calibration),
        CORE_ML: (Lowering("coreml", precision="int8"), inherited, calibration),
    }
    if kept:
        kinds["mixed, ranges of images"] = (Lowering(precision="mixed", fp32=kept), inherited, calibration)
    source = open_source(options.data)
    held_out = split_source(source).validation[: QUICK_IMAGES if options.quick else IMAGES]
    images = ImageSet(options.data, source.digest, held_out)
    programs = {}
    for kind, (lowering, trained, ranges) in kinds.items():
        (artifact,) = export_networks(
            ExportCommand(
                networks={"network": arch},
                lowering=lowering,
                trained=trained,
                calibration=ranges or CalibrationOptions(),
                workers=1,
            ),
            log,
        ).values()
        predictions = predict_with_program(artifact.path, images, workers=options.jobs)
        programs[kind] = Program(artifact.path, artifact.payload_bytes, predictions.correct(images.labels))
        log(f"{kind}: {programs[kind].correct.mean():.2%}")
    return programs, kept


def _latencies(programs: dict[str, Program], options: Options) -> dict[str, Interval]:
    """Return milliseconds of the same files, measured in one interleaved run."""
    kinds = {str(program.path): kind for kind, program in programs.items() if kind != CORE_ML}
    measured = measure_networks(
        MeasureCommand(
            target=options.target,
            files=tuple(Path(path) for path in kinds),
            budget_s=options.budget_s,
            self_test=not options.quick,
        ),
        log,
    )
    return {kinds[row.model]: Interval(row.ms, row.ci_low, row.ci_high) for row in measured.networks}
