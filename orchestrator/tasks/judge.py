"""Top-1 and top-5 of candidates and model files: of the file itself where it runs here, and of PyTorch too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.images import ClassNames, ImageSet, choose_images, class_names, output_of_class
from orchestrator.accuracy.predictions import Guesses, Keep, KeptGuesses
from orchestrator.accuracy.program import SUFFIXES
from orchestrator.agent.runtime import read_pte
from orchestrator.export import ExportSpec
from orchestrator.export.lower.coreml import UnknownOperatorError
from orchestrator.tasks.candidates import Candidate, seen_by_timm
from orchestrator.tasks.progress import Progress, Step
from orchestrator.wire.client import ModelFile
from search.supernet.data.images import IMAGENET, Normalization
from search.supernet.data.sources import Source

RUNS_HERE = ("xnnpack", "portable")
"""Delegates of ExecuTorch that run on this machine."""


@dataclass(frozen=True)
class Question:
    """What candidates are compared on; without `data` nothing is judged.

    Attributes:
        data: Text of an image source.
        split: `validation`, `search` or `all` of its images.
        images: How many of them; all by default.
        classes: `imagenet` or the file of class names, for classifiers whose outputs are not theirs.
        seen_as: How images are normalised for model files: `imagenet`, or `timm:NAME` for as timm has it.
        processes: That run exported programs.
        seed: Of the choice of images.
    """

    data: str | None = None
    split: str = "validation"
    images: int | None = None
    classes: str | None = None
    seen_as: str = "imagenet"
    processes: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Judged:
    """What the labels say of a classifier's guesses."""

    guesses: Guesses
    top1: Proportion
    top5: Proportion

    def to_dict(self, prefix: str = "") -> dict[str, Any]:
        """One level, as JSON and tables have it."""
        (low1, high1), (low5, high5) = self.top1.interval, self.top5.interval
        return {
            f"{prefix}top1": self.top1.share,
            f"{prefix}top1_low": low1,
            f"{prefix}top1_high": high1,
            f"{prefix}top5": self.top5.share,
            f"{prefix}top5_low": low5,
            f"{prefix}top5_high": high5,
        }


EVALUATED = "PyTorch, from the Core ML program"
"""Instead of Core ML: weights and int8's rounding as in the file, sums in fp32."""

NOT_JUDGED = {
    f"{prefix}top{n}{end}": None
    for prefix in ("", "pytorch_")
    for n in (1, 5)
    for end in ("", "_low", "_high")
}


@dataclass(frozen=True)
class Judge:
    """Images with labels, on which classifiers are judged.

    Attributes:
        images: As ImageNet's networks see them.
        source: Of them.
        named: What outputs of classifiers are called, where somebody says so.
        files_seen_as: How images are normalised for model files.
        folder: Where guesses are kept; None for nowhere.
        progress: Told how far each is.
    """

    question: Question
    images: ImageSet
    source: Source
    named: ClassNames | None
    files_seen_as: Normalization
    folder: Path | None
    progress: Progress

    def describe(self) -> dict[str, Any]:
        """On what, as JSON has it."""
        return {
            "source": self.source.name,
            "digest": self.source.digest,
            "split": self.question.split,
            "images": len(self.images.indices),
            "classes": self.question.classes,
        }

    def check(self, specs: Mapping[str, ExportSpec]) -> None:
        """UsageError that names a network whose outputs are not the images' classes."""
        from orchestrator.export.lower.source import build_module  # brings torch

        for name, spec in specs.items():
            module, inputs = build_module(spec)
            self.outputs_of(name, module(*inputs).shape[-1])

    def program(self, name: str, file: ModelFile, normalization: Normalization, side: int) -> Judged:
        """An exported model.

        Raises:
            UsageError: its outputs are not the images' classes, and nothing says which is which.
            InvalidArtifactError: the program or an image is damaged; what is known is kept.
        """
        from orchestrator.accuracy.program import guess_with_program

        images = self.images.seen_with(normalization, side)
        kept = KeptGuesses(self.folder, f"program {file.sha256}", images)
        known, keep = kept.read(), self._keeping(kept, name, "as exported")
        return self._judged(
            name,
            guess_with_program(file.path, images, workers=self.question.processes, known=known, keep=keep),
        )

    def network(self, name: str, spec: ExportSpec, normalization: Normalization, side: int) -> Judged:
        """The network of an export in PyTorch, in fp32; raises as `program`."""
        from orchestrator.accuracy.network import guess_with_network
        from orchestrator.export.lower.source import build_module

        plain = replace(
            spec,
            runtime="executorch",
            backend="portable",
            precision="fp32",
            options=(),
            fp32=(),
            calibration="",
            calibration_path="",
        )
        images = self.images.seen_with(normalization, side)
        kept = KeptGuesses(self.folder, f"pytorch {plain.weights} {plain.module} {plain.blocks}", images)
        known, keep = kept.read(), self._keeping(kept, name, "in PyTorch")
        module, inputs = build_module(plain)
        resolution = int(inputs[0].shape[-1])
        return self._judged(name, guess_with_network(module, images, resolution, known=known, keep=keep))

    def outputs_of(self, name: str, outputs: int) -> np.ndarray:
        """The output of each class; raises UsageError as `program`."""
        return output_of_class(name, outputs, self.source.name, self.source.classes, self.named)

    def _keeping(self, kept: KeptGuesses, name: str, how: str) -> Keep:
        def keep(guesses: Guesses) -> None:
            self.outputs_of(name, guesses.outputs)
            kept.write(guesses)
            self.progress(Step(f"{name} {how}", len(guesses.first), len(self.images.indices)))

        return keep

    def _judged(self, name: str, guesses: Guesses) -> Judged:
        expected = self.outputs_of(name, guesses.outputs)[self.source.labels[self.images.indices]]
        return Judged(guesses, guesses.accuracy(expected), guesses.accuracy(expected, among=5))


def open_judge(
    question: Question, folder: Path | None, progress: Progress, split: tuple[int, float] = (0, 0.1)
) -> Judge | None:
    """A judge with the images of a question, divided by `split` as a training did; None where it names none.

    Raises:
        UsageError: there are no such images or names of classes.
        InvalidArtifactError: they are damaged.
    """
    if question.data is None:
        return None
    images, source = choose_images(question.data, question.split, question.images, question.seed, split)
    named = class_names(question.classes) if question.classes else None
    return Judge(question, images, source, named, normalization_of(question.seen_as), folder, progress)


def judge_model(
    judge: Judge, name: str, candidate: Candidate | None, spec: ExportSpec | None, file: ModelFile
) -> dict[str, Any]:
    """A row's accuracies, as exported and in PyTorch, on how many images they agree, and why one is missing.

    Args:
        judge: The images.
        name: Of the model.
        candidate: The network, and `spec`, how it was exported; None of a model file.
        file: As exported.
    """
    cells: dict[str, Any] = dict(NOT_JUDGED) | {"agreement": None, "accuracy_note": "", "judged_by": None}
    seen_as, side = judge.files_seen_as, judge.images.side
    beside = None
    if candidate and spec:
        seen_as, side = candidate.normalization, candidate.side
        beside = judge.network(name, spec, seen_as, side)
        cells |= beside.to_dict("pytorch_")
    if why := _does_not_run(file):
        return cells | {"accuracy_note": why}
    try:
        exported = judge.program(name, file, seen_as, side)
    except UnknownOperatorError as error:
        return cells | {"accuracy_note": str(error)}
    cells |= exported.to_dict() | {"judged_by": EVALUATED if _is_package(file) else "ExecuTorch"}
    if beside:
        cells["agreement"] = exported.guesses.agreement(beside.guesses).share
    return cells


def normalization_of(text: str) -> Normalization:
    """Of `imagenet`, or of `timm:NAME`, as timm has it for that network; UsageError for anything else."""
    if text == "imagenet":
        return IMAGENET
    kind, _, name = text.partition(":")
    if kind != "timm" or not name:
        raise UsageError(f"--seen-as {text!r}: expected imagenet or timm:NAME")
    return seen_by_timm(name)[0]


def _does_not_run(file: ModelFile) -> str:
    """Why a model is not judged as exported; empty where it runs here."""
    if file.path.suffix == ".pte":
        try:
            backends = {delegate.backend for delegate in read_pte(file.path).delegates}
        except ValueError as error:
            raise InvalidArtifactError(f"{file.path}: {error}; export it again") from error
        foreign = sorted(name for name in backends if not name.lower().startswith(RUNS_HERE))
        return f"delegate {foreign[0]} does not run on this machine" if foreign else ""
    return "" if _is_package(file) else "files of other runtimes than ExecuTorch and Core ML are not judged"


def _is_package(file: ModelFile) -> bool:
    return file.path.name.endswith(SUFFIXES)
