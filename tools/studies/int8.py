"""Top-1 and latency of a network in fp32, fp16, int8 in three ways and a mix; top-1 of its int8 Core ML package."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import Proportion, normal_quantile
from luts.format.errors import UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.program import guess_with_program
from orchestrator.export.lower.pt2e import MIDDLE
from orchestrator.tasks.export import Lowering, export_networks
from orchestrator.tasks.judge import Question
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.qat import train_quantized
from orchestrator.tasks.quantization import Calibration
from orchestrator.tasks.sensitivity import find_mix
from orchestrator.tasks.target import Target
from orchestrator.tasks.trained import Trained
from search.spaces import Arch
from search.supernet.data.images import split_source
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import changed, get_recipe, only_arch
from search.supernet.train.checkpoint import load_supernet
from tools.studies._options import Options

IMAGES, QUICK_IMAGES = 10_000, 40
MIX_IMAGES, WITHIN = 5_000, 0.005
"""On which a mix is found, and the share of top-1 that it may lose there."""
BATCH = 128
Milliseconds = tuple[float, float, float]
"""Latency and the ends of its 95 % interval."""
CORE_ML = "Core ML's int8, ranges of images"


@dataclass(frozen=True)
class Judged:
    """Which images a program gets right, (N,) bool, its file and the bytes of it."""

    right: np.ndarray
    path: Path
    bytes: int


def main(options: Options) -> str:
    """Export, fine-tune, run every program over the same images; the section's text."""
    if options.data is None or options.supernet is None:
        raise UsageError("this study needs a trained network and its images; give --supernet DIR and --data")
    supernet, info = load_supernet(options.supernet)
    arch = only_arch(info.recipe, supernet.space)
    if arch is None:
        raise UsageError(f"{options.supernet} holds many networks; train one with `bench train --arch`")
    images = _images(options)
    with tempfile.TemporaryDirectory() as scratch:
        judged, kept = _judge_all(arch.with_classes(len(info.classes)), options, images, Path(scratch))
    return section(judged, _measured(judged, options), options.data, options.device, kept)


def _measured(judged: Mapping[str, Judged], options: Options) -> Mapping[str, Milliseconds]:
    """Of the same files by what they are, in one interleaved run."""
    kinds = {str(one.path): kind for kind, one in judged.items() if kind != CORE_ML}
    run = measure_networks(
        {},
        Target(options.device, threads=1),
        files=[Path(path) for path in kinds],
        budget_s=options.budget_s,
        self_test=not options.quick,
    )
    return {kinds[each.model]: (each.ms, each.ci_low, each.ci_high) for each in run.networks}


def _judge_all(
    arch: Arch, options: Options, images: ImageSet, folder: Path
) -> tuple[dict[str, Judged], tuple[str, ...]]:
    """Each way's program, and which blocks the mix keeps in fp32."""
    assert options.supernet is not None
    assert options.data is not None
    calibration = Calibration(options.data, 8 if options.quick else 128)
    inherited = Trained(supernet=options.supernet, data=options.data)
    recipe = changed(
        get_recipe("finetune"),
        {"arch": arch.to_json(), "epochs": options.epochs, "batch_size": BATCH},
        {},
    )
    tuned = train_quantized(
        options.data, folder / "qat", recipe, f"supernet:{options.supernet}", progress=print
    )
    kept = find_mix(
        {"network": arch},
        Question(options.data, "search", QUICK_IMAGES if options.quick else MIX_IMAGES),
        trained=inherited,
        calibration_images=calibration.images,
        within=WITHIN,
        progress=print,
    ).mix.fp32
    kinds: dict[str, tuple[Lowering, Trained, Calibration | None]] = {
        "fp32": (Lowering(), inherited, None),
        "fp16": (Lowering(precision="fp16"), inherited, None),
        "int8, ranges of random inputs": (Lowering(precision="int8"), inherited, None),
        "int8, ranges of images": (Lowering(precision="int8"), inherited, calibration),
        "int8 after fine-tuning for it": (Lowering(precision="int8"), Trained(tuned.weights), calibration),
        CORE_ML: (Lowering("coreml", precision="int8"), inherited, calibration),
    }
    if kept:
        kinds["mixed, ranges of images"] = (Lowering(precision="mixed", fp32=kept), inherited, calibration)
    judged = {}
    for kind, (lowering, trained, ranges) in kinds.items():
        (artifact,) = export_networks(
            {"network": arch}, lowering, trained=trained, calibration=ranges, workers=1, progress=print
        ).values()
        guesses = guess_with_program(artifact.path, images, workers=options.jobs)
        judged[kind] = Judged(guesses.right(images.labels), artifact.path, artifact.payload_bytes)
        print(f"{kind}: {judged[kind].right.mean():.2%}", flush=True)
    return judged, kept


def _images(options: Options) -> ImageSet:
    """Validation images, which neither training nor calibration has seen."""
    assert options.data is not None
    source = open_source(options.data)
    held_out = split_source(source).validation[: QUICK_IMAGES if options.quick else IMAGES]
    return ImageSet(options.data, source.digest, held_out)


def section(
    judged: Mapping[str, Judged],
    measured: Mapping[str, Milliseconds],
    data: str,
    device: str,
    kept: tuple[str, ...] = (),
) -> str:
    """A table of top-1 with intervals, of paired differences to fp32, and of milliseconds."""
    exact = judged["fp32"].right
    rows = []
    for kind, one in judged.items():
        share = Proportion(int(one.right.sum()), len(one.right))
        low, high = share.interval
        paired = "" if kind == "fp32" else _in_points(*paired_difference(one.right, exact))
        latency = "{:.4f} ({:.4f} to {:.4f})".format(*measured[kind]) if kind in measured else ""
        rows.append(
            f"| {kind} | {100 * share.share:.2f} ({100 * low:.2f} to {100 * high:.2f}) | {paired} | {latency} "
            f"| {one.bytes:,} |"
        )
    return f"""### int8 that is looked at

Top-1 in percent of the exported programs, run by ExecuTorch over the same {len(exact):,} validation images of
{data.partition(":")[0]}; 95 % intervals, those of differences paired image by image. Ranges of images hold
the middle {100 * MIDDLE:g} % of an activation's values. Milliseconds of the same files on {device}, one thread,
all in one interleaved run. The Core ML package is evaluated in PyTorch and was not measured. {_told(kept)}

| | top-1 | difference to fp32, points | ms | bytes |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _told(kept: tuple[str, ...]) -> str:
    within = f"{100 * WITHIN:g} points of top-1 on {MIX_IMAGES} images"
    if not kept:
        return f"No block had to stay fp32: by `bench sensitivity`, all of it in int8 loses no more than {within}."
    return f"The mix keeps blocks {', '.join(kept)} in fp32, the fewest with which it loses no more than {within}."


def paired_difference(right: np.ndarray, before: np.ndarray) -> tuple[float, float, float]:
    """Share of images right now less before, with the 95 % interval of the mean of paired differences."""
    differences = right.astype(float) - before.astype(float)
    mean = float(differences.mean())
    spread = normal_quantile(0.975) * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return mean, mean - spread, mean + spread


def _in_points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
