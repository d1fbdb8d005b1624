"""Which blocks of a network lose its accuracy in int8, and the fewest of them that have to stay fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import UsageError
from orchestrator.accuracy.predictions import Guesses, guesses_of
from orchestrator.export import ExportSpec
from orchestrator.tasks.export import Lowering, normalization_for, specs_for
from orchestrator.tasks.judge import Judge, Question, open_judge
from orchestrator.tasks.networks import Networks, by_name
from orchestrator.tasks.progress import Progress, Step, silent
from orchestrator.tasks.quantization import DEFAULT_IMAGES, Calibration, Mix
from orchestrator.tasks.trained import Trained
from search.blocks import group_blocks, parse_keys


@dataclass(frozen=True)
class JudgedMix:
    """A network in int8 but for some parts.

    Attributes:
        what: How it is called in a table.
        fp32: Paths of the parts that stay fp32; None for the whole network.
        top1: On the images.
        agreement: Share of images with the first guess of fp32.
        error: Root mean square of the differences of logits to fp32, of the spread of fp32's.
    """

    what: str
    fp32: tuple[str, ...] | None
    top1: Proportion
    agreement: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON and tables have it."""
        low, high = self.top1.interval
        return {
            "what": self.what,
            "top1": self.top1.share,
            "top1_low": low,
            "top1_high": high,
            "agreement": self.agreement,
            "error": self.error,
        }


@dataclass(frozen=True)
class Sensitivity:
    """What int8 costs a network.

    Attributes:
        fp32: The network as it was trained, and
        int8: all of it in int8.
        alone: Each part alone in int8, the costliest first.
        mixes: With the costliest parts in fp32, one more each time, up to the first that loses little enough.
        mix: That one, as `--fp32` takes it.
    """

    fp32: JudgedMix
    int8: JudgedMix
    alone: tuple[JudgedMix, ...]
    mixes: tuple[JudgedMix, ...]
    mix: Mix

    @property
    def rows(self) -> tuple[JudgedMix, ...]:
        """In order of a table."""
        return (self.fp32, self.int8, *self.alone, *self.mixes)


def find_mix(
    network: Networks,
    question: Question,
    *,
    trained: Trained,
    calibration_images: int = DEFAULT_IMAGES,
    within: float = 0.005,
    resolution: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Judge each part of a network alone in int8, then with more and more of the costliest ones in fp32.

    Int8 is simulated in PyTorch with the exporter's own quantisation; `bench eval --precision mixed` judges the
    exported program.

    Args:
        network: One; none for the one that `trained.supernet` was trained for alone.
        question: On which images, of which the training images decide ranges.
        trained: Its weights.
        calibration_images: How many decide ranges.
        within: Top-1 that may be lost to fp32, a share.
        resolution: Side of the input image; its own by default.
        progress: Told of each part.

    Raises:
        UsageError: no network or several, no weights, no such images, or classes that are not those of the images.
        InvalidArtifactError: weights or an image are damaged.
    """
    if question.data is None:
        raise UsageError("what int8 costs is judged on images; give --data")
    if trained.file is None and trained.supernet is None:
        raise UsageError("random weights have no accuracy to lose; give --weights FILE or --supernet DIR")
    from orchestrator.tasks.candidates import split_of  # brings torch

    judge = open_judge(question, None, progress, split_of((), trained.supernet))
    assert judge is not None
    calibration = Calibration(question.data, calibration_images, question.seed)
    with tempfile.TemporaryDirectory() as folder:
        specs = specs_for(
            by_name(network),
            Lowering(precision="int8"),
            resolution,
            trained,
            calibration,
            Path(folder),
            progress,
        )
        if len(specs) != 1:
            raise UsageError(f"parts are judged of one network, not of {len(specs)}; name one")
        ((name, spec),) = specs.items()
        return _find(name, spec, judge, trained, within, progress)


def _find(
    name: str, spec: ExportSpec, judge: Judge, trained: Trained, within: float, progress: Progress
) -> Sensitivity:
    from orchestrator.accuracy.network import Simulated
    from orchestrator.export.lower.calibration import read_images
    from orchestrator.export.lower.source import build_module, places_of

    module, inputs = build_module(spec)
    ranges = read_images(Path(spec.calibration_path), inputs)
    side = max(256, ranges.shape[-1])
    images = judge.images.seen_with(normalization_for(spec, trained) or judge.images.normalization, side)
    simulated = Simulated(module, ranges, images)
    exact = simulated.logits(None)
    expected = judge.outputs_of(name, exact.shape[1])[judge.source.labels[judge.images.indices]]
    keys = {str(i): f"{i} {group[0].key}" for i, group in enumerate(group_blocks(parse_keys(spec.blocks)))}
    labels = {place: keys.get(place, place) for place in places_of(module)}

    def logits(fp32: tuple[str, ...] | None, what: str = "fp32", done: int = 0) -> np.ndarray:
        progress(Step(f"{name}, {what}", done, 2 * len(labels) + 1))
        return simulated.logits(fp32)

    exact = logits(None)
    expected = judge.outputs_of(name, exact.shape[1])[judge.source.labels[judge.images.indices]]
    before, alone, mixes = choose(labels, exact, expected, logits, within)
    whole, best = mixes[0], mixes[-1]
    found = {
        "fp32": before.to_dict(),
        "int8": whole.to_dict(),
        "mix": best.to_dict(),
        "data": judge.describe(),
        "weights": spec.weights,
        "calibration": spec.calibration,
    }
    mix = Mix(blocks=spec.blocks, module=spec.module, fp32=best.fp32 or (), judged=found)
    return Sensitivity(before, whole, tuple(alone), tuple(mixes[1:]), mix)


def choose(
    labels: Mapping[str, str],
    exact: np.ndarray,
    expected: np.ndarray,
    logits: Callable[[tuple[str, ...], str, int], np.ndarray],
    within: float,
) -> tuple[JudgedMix, list[JudgedMix], list[JudgedMix]]:
    """The network in fp32, each part alone in int8, the costliest first, and mixes from all int8 to the chosen one.

    Args:
        labels: What parts are called, by their paths.
        exact: (N, outputs) of fp32.
        expected: (N,) outputs that are right.
        logits: (N, outputs) of a mix, told what it is called and how many were asked for before.
        within: Share of images of top-1 that may be lost.
    """
    table, places = _Table(exact, expected), list(labels)

    def judged(done: int, what: str, fp32: list[str]) -> JudgedMix:
        return table.judged(what, tuple(fp32), logits(tuple(fp32), what, done))

    mixes = [judged(0, "all int8", [])]
    alone = [
        judged(1 + i, f"{label} alone in int8", [other for other in places if other != place])
        for i, (place, label) in enumerate(labels.items())
    ]
    order = sorted(range(len(places)), key=lambda i: (alone[i].agreement, -alone[i].error))
    before = table.judged("fp32", None, exact)
    while mixes[-1].top1.share < before.top1.share - within and len(mixes) <= len(places):
        paths = [places[i] for i in sorted(order[: len(mixes)])]
        mixes.append(judged(len(places) + len(mixes), f"int8 but for {' '.join(paths)}", paths))
    return before, [alone[i] for i in order], mixes


@dataclass(frozen=True, eq=False)
class _Table:
    """What fp32 says of images (N, outputs), and the outputs (N,) that are right."""

    exact: np.ndarray
    expected: np.ndarray

    def judged(self, what: str, fp32: tuple[str, ...] | None, logits: np.ndarray) -> JudgedMix:
        outputs = logits.shape[1]
        guesses, before = (Guesses(guesses_of(each), outputs) for each in (logits, self.exact))
        error = float(np.sqrt(np.mean((logits - self.exact) ** 2)) / (self.exact.std() or 1.0))
        return JudgedMix(what, fp32, guesses.accuracy(self.expected), guesses.agreement(before).share, error)


def summary(found: Sensitivity) -> Mapping[str, Any]:
    """As JSON has it."""
    return {"rows": [row.to_dict() for row in found.rows], "fp32": list(found.mix.fp32)}
