"""Supernets and networks alone, trained on images and judged; each kept in the runs' folder and gone on with."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from luts.format.errors import UsageError
from luts.format.files import read_json, write_atomically
from orchestrator.journal.runs import runs_root
from search.spaces import Arch, Space, get_space
from search.spaces.registry import arch_from_json
from search.supernet.data.images import ImageData, Split
from search.supernet.data.sources import open_source
from search.supernet.inherit import CALIBRATION_BATCHES, InheritedAccuracy
from search.supernet.model.supernet import choose_device
from search.supernet.recipe.recipe import Recipe, changed, get_recipe
from search.supernet.recipe.samplers import largest, smallest
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.logs import Progress
from search.supernet.train.step import ComputeSettings
from search.supernet.train.trainer import Trainer
from tools.studies import _teacher
from tools.studies._options import Options
from tools.studies._processes import side_by_side

SPACE = "autovit-cifar"
QUICK_SPACE = "autovit-nano"
NETWORKS = 12
QUICK_NETWORKS = 3
RECIPE = "one-cycle-adamw"
REFERENCE_DRAWS = 400
RANGES = ("smaller", "medium", "larger")
MAX_SCORES_BYTES = 1 << 20
REPORT_STEPS = 200


class Scores(BaseModel):
    """Top-1 accuracies on the validation images, by JSON of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str
    top1: dict[str, float]


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        data: Text of the image source.
        digest: Of its images.
        teacher: Weights of the teacher that its recipe's distillation asks; None where it asks none.
        labels: Folder of the teacher's stored answers.
    """

    space: str
    recipe: Recipe
    data: str
    digest: str
    teacher: Path | None = None
    labels: Path | None = None

    @cached_property
    def folder(self) -> Path:
        """Of its checkpoint."""
        said = [self.space, get_space(self.space).digest, self.recipe.model_dump(mode="json"), self.digest]
        teacher = self.teacher.name if self.teacher else None
        digest = hashlib.sha256(json.dumps([*said, teacher], sort_keys=True).encode()).hexdigest()
        return runs_root() / "studies" / f"supernet-{digest[:16]}"


class Supernets:
    """What the studies of supernets share: images, networks to judge, a teacher, and the trainings."""

    def __init__(self, options: Options, networks: int = NETWORKS):
        """`networks`: how many are judged; `UsageError` where no images are named."""
        if options.data is None and not options.quick:
            raise UsageError("this study trains supernets; give --data, such as cifar10:DIR, or --quick")
        self.options, self._networks = options, networks
        self.text = options.data or "digits"
        self.images = open_images(self.text)
        if options.quick:
            split = self.images.split
            self.images.split = Split(split.train[:256], split.search[:32], split.validation[:64])
        self.space: Space = get_space(QUICK_SPACE if options.quick else SPACE)
        drawn = [
            self.space.with_classes(self.images.classes).sample(random.Random(i))
            for i in range(REFERENCE_DRAWS)
        ]
        self._by_size = sorted(set(drawn), key=lambda arch: (arch.params(), arch.to_json()))

    @property
    def archs(self) -> list[Arch]:
        """Networks to judge: at equal steps among random ones sorted by parameters, the smallest first."""
        count = QUICK_NETWORKS if self.options.quick else self._networks
        return [self._by_size[round((i + 0.5) * len(self._by_size) / count)] for i in range(count)]

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Name -> least and most parameters: thirds of the random networks."""
        params = [arch.params() for arch in self._by_size]
        edges = [params[round(i * (len(params) - 1) / len(RANGES))] for i in range(len(RANGES) + 1)]
        return {name: (edges[i] + (i > 0), edges[i + 1]) for i, name in enumerate(RANGES)}

    @cached_property
    def teacher(self) -> Path:
        """Weights of a teacher of these images."""
        return _teacher.teacher_file(self.images, self.options.quick)

    def teacher_accuracy(self) -> float:
        """Its share of right answers on the validation images."""
        teacher, split = _teacher.load(self.images, self.teacher), self.images.split.validation
        right = sum(
            int((teacher.logits(images).argmax(1) == labels).sum())
            for images, labels in self.images.batches(split, self.images.side, 128)
        )
        return right / len(split)

    def run(self, kind: str, seed: int, epochs: int | None = None, **changes: object) -> Training:
        """A training with distillation `kind`, of so many `epochs` or as options say; `changes` to its recipe."""
        distillation = {"kind": kind, "alpha": 0.5, "tau": 1.0}
        recipe = changed(study_recipe(RECIPE, epochs or self.options.epochs, seed), changes, distillation)
        taught = kind != "none"
        return Training(
            self.space.name,
            recipe,
            self.text,
            self.images.source.digest,
            self.teacher if taught else None,
            runs_root() / "studies" / "labels" / self.teacher.stem / str(seed) if taught else None,
        )

    def inherited(self, runs: Sequence[Training]) -> list[dict[Arch, float]]:
        """Train what is not trained yet, side by side; each one's accuracies on the validation images.

        A run that trains one network alone is asked for that one, the others for `archs`.
        """
        wanted = list(dict.fromkeys(runs))
        asked = [(run, self.asked(run)) for run in wanted]
        if self.options.jobs == 1 or self.options.quick:
            device = choose_device(self.options.on)
            scores = [judged(run, archs, self.images, device) for run, archs in asked]
        else:
            scores = side_by_side(_asked, asked, self.options)
        by_run = dict(zip(wanted, scores, strict=True))
        return [by_run[run] for run in runs]

    def alone(self, archs: Sequence[Arch], seed: int = 0) -> list[float]:
        """Top-1 of networks that are each trained alone."""
        scores = self.inherited(self.alone_runs(archs, seed))
        return [each[arch] for each, arch in zip(scores, archs, strict=True)]

    def alone_runs(self, archs: Sequence[Arch], seed: int = 0) -> list[Training]:
        """The training of each network alone."""
        epochs = self.options.alone_epochs or self.options.epochs
        return [self.run("none", seed, epochs, arch=arch.to_json()) for arch in archs]

    def alone_setting(self) -> str:
        """How long that is, as text."""
        epochs = self.options.alone_epochs or self.options.epochs
        supernet = self.options.epochs
        return f"{epochs} epochs" + ("" if epochs == supernet else f" where a supernet has {supernet}")

    def asked(self, run: Training) -> list[Arch]:
        """The networks that a training is judged by."""
        if run.recipe.arch is None:
            return self.archs
        return [arch_from_json(run.recipe.arch)]

    def setting(self) -> str:
        """What was trained on what, as text."""
        space = self.space.with_classes(self.images.classes)
        low, high = smallest(space).params(), largest(space).params()
        steps = self.options.epochs * (len(self.images.split.train) // 128)
        return (
            f"Space `{self.space.name}` ({self.space.size()} networks, {low / 1e3:.0f} to {high / 1e3:.0f} "
            f"thousand parameters, {self.space.default_resolution} px), "
            f"{len(self.images.split.train)} training images, "
            f"{self.options.epochs} epochs or {steps} steps of 128 images in every supernet by the recipe "
            f"`{RECIPE}` in bf16, one subnet a step; {len(self.archs)} networks at equal distances by size, "
            f"top-1 on the {len(self.images.split.validation)} validation images with BN recalibrated, "
            f"seeds: {self.options.seeds}."
        )


def study_recipe(name: str, epochs: int, seed: int) -> Recipe:
    """One of the one-cycle recipes in bf16, its rise three tenths of whatever length."""
    changes = {"epochs": epochs, "warmup_epochs": 0.3 * epochs, "precision": "bf16", "seed": seed}
    return changed(get_recipe(name), changes, {})


def open_images(text: str) -> ImageData:
    """The images, split as `bench train` splits them."""
    return ImageData(open_source(text), fraction=0.1, largest_side=32)


def _asked(said: tuple[Training, Sequence[Arch]], on: str, number: int) -> dict[Arch, float]:
    run, archs = said
    return judged(run, archs, open_images(run.data), choose_device(on, number))


def judged(
    run: Training,
    archs: Sequence[Arch],
    images: ImageData,
    device: torch.device,
    calibration_batches: int = CALIBRATION_BATCHES,
) -> dict[Arch, float]:
    """Train it unless it is trained; top-1 of networks on the validation images, at whatever size of the space."""
    teacher = None if run.teacher is None else _teacher.load(images, run.teacher)
    compute = ComputeSettings(device)
    trainer = Trainer(
        get_space(run.space), images, run.recipe, run.folder, teacher, run.labels, compute=compute
    )
    info = trainer.run(_reporter(run))
    path = run.folder / "validation.json"
    known = read_json(path, Scores, MAX_SCORES_BYTES, "remove it") if path.exists() else None
    scores = known.top1 if known is not None and known.weights_sha256 == info.weights_sha256 else {}
    missing = [arch for arch in archs if arch.to_json() not in scores]
    if missing:
        supernet, info = load_supernet(run.folder)
        at_all_sizes = info.model_copy(update={"recipe": changed(info.recipe, {"resolutions": "space"}, {})})
        judge = InheritedAccuracy(
            supernet, at_all_sizes, images, final=True, calibration_batches=calibration_batches
        )
        judge.move_to(device)
        scores = scores | {arch.to_json(): judge.accuracy(arch) for arch in missing}
        document = Scores(weights_sha256=info.weights_sha256, top1=scores)
        write_atomically(path, document.model_dump_json(indent=1).encode())
    return {arch: scores[arch.to_json()] for arch in archs}


def _reporter(run: Training) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step % REPORT_STEPS == 0:
            print(f"{run.folder.name}: step {progress.step} of {progress.steps}", flush=True)

    return report
