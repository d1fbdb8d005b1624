"""Exported programs: EfficientNet-Lite against search winners, precisions of one network, three runtimes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import Proportion, normal_quantile
from luts.format.errors import UsageError
from luts.format.files import write_text
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.program import predict_with_program
from orchestrator.journal.runs import runs_root
from orchestrator.report.draw import write_figure
from orchestrator.report.figures import pareto_figure
from orchestrator.tasks.compare import compare_networks
from orchestrator.tasks.evaluation_options import (
    CalibrationOptions,
    CompareOptions,
    OptionalTarget,
    SensitivityOptions,
)
from orchestrator.tasks.export import ExportCommand, Lowering, export_networks
from orchestrator.tasks.runtimes import RuntimesCommand, measure_runtimes
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import SearchCommand, SettingOptions, TargetOptions
from orchestrator.tasks.sensitivity import measure_sensitivity
from orchestrator.tasks.train import train_qat
from orchestrator.tasks.train_options import QatOptions
from orchestrator.tasks.trained import Trained
from search.spaces import Arch
from search.spaces.registry import timm_arch
from search.supernet.data.images import split_source
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import changed, get_recipe, only_arch
from search.supernet.train.checkpoint import load_supernet
from tools.studies.shared import Options
from tools.studies.trainings import Training
from tools.tables import Interval, Tables, log

SPACE = "autovit-cifar"
LITES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
SIDE = 64
"""Image side of timm's networks in pixels: twice that of the images, so that maps do not vanish."""
PERCENTS = (40, 80)
"""Latency limits of the winners, in percent of the LUT's reference."""
LEARNING_RATE = 1e-3
"""Peak of fine-tuning; the recipe's own is for many more epochs."""
SUPERNET_EPOCHS = 40
QUICK_COMPARE_IMAGES = 100


def compare_winners(options: Options) -> Tables:
    """Train, search, fine-tune and compare on validation images; accuracies in percent, Wilson's 95 % intervals."""
    folder = runs_root() / "studies" / ("compare-quick" if options.quick else "compare")
    lites = [timm_arch(f"timm:{name}@{SIDE}") for name in LITES]
    networks = [f"{arch.space}:{_fine_tuned(arch, f'timm:{arch.space[5:-3]}', options)}" for arch in lites]
    comparison = CompareOptions(
        networks=(*networks, *_winners(options, folder)),
        data=options.images,
        images=QUICK_COMPARE_IMAGES if options.quick else None,
        processes=options.jobs,
        target=OptionalTarget(**vars(options.target)),
        budget_s=options.budget_s,
        output=folder / "table",
    )
    compared = compare_networks(comparison, log)
    images = f"{(compared.data or {})['images']} images"
    options.pictures.mkdir(parents=True, exist_ok=True)
    drawn = pareto_figure(compared.rows, options.device, images, compared.simulated)
    write_figure(options.pictures / "compare.png", drawn)
    rows = [
        {
            "network": Path(row["model"].partition(":/")[0].removeprefix("timm:")).stem,
            "top-1": Interval(100 * row["top1"], 100 * row["top1_low"], 100 * row["top1_high"]),
            "PyTorch": 100 * row["pytorch_top1"],
            "agreement": 100 * row["agreement"],
            "ms": Interval(row["ms"], row["ci_low"], row["ci_high"]),
            "p90 ms": row["p90_ms"],
            "load ms": row["load_ms"],
            "file MiB": row["file_bytes"] / 2**20,
            "peak MiB": row["peak_memory_bytes"] and row["peak_memory_bytes"] / 2**20,
            "parameters": row["params"],
            "MACs": row["conv_linear_macs"],
            "on the front": row["pareto"],
        }
        for row in compared.rows
    ]
    return {"EfficientNet-Lite and search winners": rows}


def _fine_tuned(arch: Arch, init: str, options: Options) -> Path:
    """Return the folder of a network's training from weights."""
    values = {
        "arch": arch.to_json(),
        "epochs": options.epochs,
        "precision": "bf16",
        "learning_rate": LEARNING_RATE,
        "warmup_epochs": 0.1 * options.epochs,
    }
    recipe = changed(get_recipe("finetune"), values, {})
    classes = 10 if init.startswith("timm:") else None
    return Training(arch.space, recipe, options.images, init=init, classes=classes).run(options.on)


def _winners(options: Options, folder: Path) -> list[str]:
    """Return the most accurate networks of a supernet within two latencies, fine-tuned, as `NETWORK:WEIGHTS`."""
    epochs = options.epochs if options.quick else SUPERNET_EPOCHS
    recipe = changed(get_recipe("cifar10"), {"epochs": epochs, "precision": "bf16"}, {})
    supernet = Training(SPACE, recipe, options.images).run(options.on)
    settings = SettingOptions(generations=3)
    if options.quick:
        settings = SettingOptions(population=4, generations=1, draws=100)
    texts = []
    for percent in PERCENTS:
        command = SearchCommand(
            targets=TargetOptions(lut=options.lut, latency=f"{percent}%"),
            supernet=supernet,
            settings=settings,
            on=options.on,
            output=folder / f"search-{percent}",
        )
        found = find_network(command, log)
        arch, file = found.winner.architecture(), folder / f"winner-{percent}.json"
        write_text(file, arch.to_json())
        texts.append(f"{file}:{_fine_tuned(arch, f'supernet:{supernet}', options)}")
    return texts


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


def compare_precisions(options: Options) -> Tables:
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
    return {
        kinds[row.model]: Interval(row.ms, row.ci_low, row.ci_high)
        for row in options.measure(files=[Path(path) for path in kinds])
    }


RUNTIME_NETWORKS = (
    "autovit-xxs-paper",
    "mobilevit-xxs",
    "efficientvit-m0",
    "efficientvit-m1",
    "timm:mobilenetv3_small_100",
    "timm:mobilenetv3_large_100",
    "timm:mobilenetv2_100",
    "timm:tf_efficientnet_lite0",
    "timm:tf_efficientnet_lite1",
    "timm:resnet18",
    "timm:deit_tiny_patch16_224",
    "timm:ghostnet_100",
)


def compare_runtimes(options: Options) -> Tables:
    """Measure; `outputs` is the largest difference to ExecuTorch's outputs, relative to their scale."""
    measured = measure_runtimes(
        RuntimesCommand(
            networks=RUNTIME_NETWORKS[:1] if options.quick else RUNTIME_NETWORKS,
            target=options.target,
            threads=options.target.threads,
            budget_s=options.budget_s,
            self_test=not options.quick,
        ),
        log,
    )
    rows = [
        {
            "network": row.model,
            "runtime": row.runtime,
            "ms": Interval(row.ms, row.ci_low, row.ci_high),
            "to ExecuTorch": row.ratio,
            "outputs": row.difference,
        }
        for row in measured.rows
    ]
    return {
        "The same weights in three runtimes": rows,
        "Kendall's tau of latencies": [
            {"runtimes": f"{a}, {b}", "tau": value} for (a, b), value in measured.tau.items()
        ],
        "Versions": [{"runtime": name, "version": version} for name, version in measured.versions.items()],
    }
