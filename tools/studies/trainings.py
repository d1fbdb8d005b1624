"""Trainings of studies: supernets and single networks, each kept in the runs folder and resumed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.journal.runs import runs_root
from orchestrator.tasks.train import train_classifier
from orchestrator.tasks.train_options import ClassifierOptions
from orchestrator.winner.card import save_weights
from search.algorithms import CachedEvaluator, InProcess
from search.spaces import Arch, get_space
from search.spaces.registry import arch_from_json, timm_arch
from search.supernet.inherit import InheritedAccuracy, InheritedLikelihood, reopen_data
from search.supernet.recipe.recipe import Recipe, changed, get_recipe
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.objective import RECORDED
from tools.studies.shared import Options
from tools.tables import log, run_parallel

TEACHER, TEACHER_PX = "tf_efficientnet_lite0", 48
RECIPE = "one-cycle-adamw"
REFERENCE_DRAWS = 400
"""Random networks among which those of a study are chosen by size."""
RANGES = ("smaller", "medium", "larger")


class _OncePerNetwork(InheritedAccuracy):
    """Reuses the last outputs, so that accuracy and likelihood of a network need one pass over the images."""

    _last: tuple[Arch, tuple[Tensor, Tensor]] | None = None

    def outputs(self, arch: Arch) -> tuple[Tensor, Tensor]:
        if self._last is None or self._last[0] != arch:
            self._last = arch, super().outputs(arch)
        return self._last[1]


@dataclass(frozen=True)
class Evaluators:
    """Top-1 accuracy and likelihood of networks with the weights of a training, cached in its folder."""

    inherited: InheritedAccuracy
    top1: CachedEvaluator
    likelihood: CachedEvaluator


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        space: Name of the space.
        recipe: With `recipe.arch` it trains that network alone.
        data: Image source.
        teacher: `timm:NAME:FILE` to distil from.
        init: Weights to start from, as in `bench train --init`.
        classes: Classes of a new classifier; None keeps that of `init`.
        teacher_px: Side of the teacher's images; its file stands for it in the folder's name.
    """

    space: str
    recipe: Recipe
    data: str
    teacher: str | None = None
    init: str | None = None
    classes: int | None = None
    teacher_px: int = field(default=TEACHER_PX, repr=False)

    @cached_property
    def folder(self) -> Path:
        """Folder of the checkpoint, found again by everything that decides the training."""
        return runs_root() / "studies" / f"training-{_digest(repr((self, get_space(self.space).digest)))}"

    def run(self, on: str = "cpu") -> Path:
        """Train, or resume, and return the folder."""
        labels = None
        recipe = self.recipe
        recorded = any(term.needs & RECORDED for term in recipe.distillation.terms)
        if self.teacher is not None and recipe.augmentation_epochs and not recorded:
            name = f"{_digest(self.teacher)}-{recipe.seed}-{recipe.augmentation_epochs}"
            labels = self.folder.parent / "labels" / name
        options = ClassifierOptions(
            space=self.space,
            data=self.data,
            output=self.folder,
            recipe=recipe,
            teacher=self.teacher,
            teacher_resolution=self.teacher_px if self.teacher else None,
            teacher_labels=labels,
            init=self.init,
            classes=self.classes,
            on=on,
        )
        train_classifier(options, log)
        return self.folder

    def top1_alone(self, on: str = "cpu", **how: Any) -> float:
        """Train, or resume; return the top-1, 0 to 1, of a network trained alone; `how` as in `evaluators`."""
        self.run(on)
        arch = arch_from_json(self.recipe.arch or "")
        return self.evaluators(on, **how).top1.accuracies([arch])[0]

    def evaluators(
        self,
        on: str = "cpu",
        *,
        final: bool = False,
        calibration_batches: int = 64,
        images: int | None = None,
    ) -> Evaluators:
        """Open the evaluators of a finished training.

        Args:
            on: `auto`, `cpu`, `cuda` or `mps`.
            final: Evaluate on the validation images instead of the search split.
            calibration_batches: Training batches of 128 images for BN statistics.
            images: Evaluate on about this many of them, evenly spaced: they may be sorted by class.
        """
        supernet, info = load_supernet(self.folder)
        info = info.model_copy(update={"recipe": changed(info.recipe, {"resolutions": "space"}, {})})
        data = reopen_data(info, self.data)
        inherited = _OncePerNetwork(
            supernet, info, data, final=final, calibration_batches=calibration_batches
        )
        inherited.held_out = inherited.held_out[:: max(1, len(inherited.held_out) // images) if images else 1]
        inherited.move_to(on)
        name = f"{inherited.split_name}-{len(inherited.held_out)}.jsonl"
        return Evaluators(
            inherited,
            CachedEvaluator(InProcess(inherited), self.folder / f"top1-{name}"),
            CachedEvaluator(InProcess(InheritedLikelihood(inherited)), self.folder / f"likelihood-{name}"),
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_all(trainings: Sequence[Training], options: Options) -> None:
    """Train in parallel what is not trained yet."""
    run_parallel(partial(Training.run, on=options.on), trainings, options.jobs)


def one_cycle(name: str, epochs: int, seed: int) -> Recipe:
    """Return a one-cycle recipe whose learning rate rises during three tenths of the epochs.

    Its precision is bf16 where the processor computes in it; elsewhere bf16 takes ten times as long as fp32.
    """
    precision = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    values = {"epochs": epochs, "warmup_epochs": 0.3 * epochs, "precision": precision, "seed": seed}
    return changed(get_recipe(name), values, {})


class SupernetStudy:
    """What studies of supernets on CIFAR-10 share: the space, the networks that are evaluated, the trainings."""

    def __init__(self, options: Options, networks: int = 12, space: str = "autovit-cifar"):
        """Choose so many networks of a space to evaluate: the smallest first, evenly spaced in size.

        Raises:
            UsageError: no images were given.
        """
        self.options, self.data = options, options.images
        self.space = get_space(options.pick(space, "autovit-nano")).with_classes(10)
        drawn = {self.space.sample(random.Random(seed)) for seed in range(REFERENCE_DRAWS)}
        by_size = sorted(drawn, key=lambda arch: (arch.params(), arch.to_json()))
        count = options.pick(networks, 3)
        self.archs = [by_size[round((i + 0.5) * len(by_size) / count)] for i in range(count)]
        params = [arch.params() for arch in by_size]
        edges = [params[round(i * (len(params) - 1) / len(RANGES))] for i in range(len(RANGES) + 1)]
        self.ranges = {name: (edges[i] + (i > 0), edges[i + 1]) for i, name in enumerate(RANGES)}
        """Fewest and most parameters of each third of the random networks."""

    def training(self, seed: int, epochs: int | None = None, **changes: object) -> Training:
        """Return a supernet's training; `changes` override fields of its recipe."""
        recipe = changed(one_cycle(RECIPE, epochs or self.options.epochs, seed), changes, {})
        return Training(self.space.name, recipe, self.data)

    def alone(self, arch: Arch, seed: int = 0, epochs: int | None = None) -> Training:
        """Return the training of one network on its own, by default for `--alone-epochs`."""
        return self.training(seed, epochs or self.options.alone_epochs, arch=arch.to_json())

    def evaluated(self, training: Training) -> list[Arch]:
        """Return the networks that a training is evaluated for: `archs`, or the one that is trained alone."""
        return self.archs if training.recipe.arch is None else [arch_from_json(training.recipe.arch)]

    def accuracies(self, trainings: Sequence[Training]) -> list[dict[Arch, float]]:
        """Train in parallel what is not trained yet; return validation top-1 in percent, by network."""
        distinct = list(dict.fromkeys(trainings))
        items = [(each, self.evaluated(each)) for each in distinct]
        found = run_parallel(partial(_trained_accuracies, on=self.options.on), items, self.options.jobs)
        by_training = dict(zip(distinct, found, strict=True))
        return [by_training[each] for each in trainings]

    def alone_accuracies(
        self, archs: Sequence[Arch], seeds: Sequence[int], epochs: int | None = None
    ) -> dict[Arch, list[float]]:
        """Train each network alone with every seed; return validation top-1 in percent, in that order."""
        trained = self.accuracies([self.alone(arch, seed, epochs) for arch in archs for seed in seeds])
        values = [accuracy for each in trained for accuracy in each.values()]
        count = len(seeds)
        return {arch: values[count * at : count * (at + 1)] for at, arch in enumerate(archs)}


def _trained_accuracies(item: tuple[Training, Sequence[Arch]], on: str) -> dict[Arch, float]:
    training, archs = item
    training.run(on)
    top1 = training.evaluators(on, final=True).top1.accuracies(archs)
    return {arch: 100 * value for arch, value in zip(archs, top1, strict=True)}


def trained_teacher(options: Options, px: int = TEACHER_PX, **changes: object) -> tuple[str, float]:
    """Fine-tune the teacher network from ImageNet weights; return `timm:NAME:FILE` and its top-1 in percent.

    `changes` override fields of its recipe.

    Raises:
        UsageError: the package with the ImageNet weights is not installed.
    """
    arch = timm_arch(f"timm:{TEACHER}@{px}").with_classes(10)
    values = {
        "arch": arch.to_json(),
        "epochs": options.pick(2, 1),
        "batch_size": 64,
        "learning_rate": 1e-3,
        "warmup_epochs": 0.1,
    }
    recipe = changed(get_recipe("finetune"), values | changes, {})
    training = Training(arch.space, recipe, options.images, init=f"timm:{TEACHER}", classes=10)
    training.run(options.on)
    opened = training.evaluators(options.on, final=True)
    weights = save_weights(opened.inherited, arch, training.folder / "weights")
    return f"timm:{TEACHER}:{weights}", 100 * opened.top1.accuracies([arch])[0]
