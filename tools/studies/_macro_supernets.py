"""Supernets of NAS-Bench-Macro's space, and what networks inherit from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from luts.format.errors import UsageError
from search.spaces import Arch, Space, get_space, register_space
from search.spaces.family import register_stage
from search.spaces.layout import Value
from search.spaces.nasbench_macro import place
from search.supernet.data.images import Split
from search.supernet.model.supernet import choose_device
from search.supernet.recipe.recipe import changed
from search.supernet.train.logs import Progress
from search.supernet.train.step import ComputeSettings
from search.supernet.train.trainer import Trainer
from tools.studies._judges import CALIBRATION_BATCHES, Judges, judges
from tools.studies._macro import SPACE
from tools.studies._options import Options
from tools.studies._supernets import Training, open_images, study_recipe

QUICK_IMAGES = 128
REPORT_STEPS = 100

Found = TypeVar("Found")


def _own_slots(v: dict[str, Value]) -> list[str]:
    """Each operation of a place has weights of its own."""
    return [f"op{v['op']}"]


register_stage("macro-place-separate", _own_slots)(place)
SEPARATE: Space = register_space(
    replace(
        SPACE,
        name="nasbench-macro-separate",
        stages=tuple(
            replace(stage, kind="macro-place-separate") if stage.kind == "macro-place" else stage
            for stage in SPACE.stages
        ),
    )
)
"""The same networks with a set of weights for each operation of each place, as single-path one-shot search has."""


@dataclass(frozen=True)
class MacroSupernet:
    """One training by the recipe `one-cycle`, of one uniform subnet a step.

    Attributes:
        space: Name of `SPACE` or of `SEPARATE`.
        data: Text of the image source.
        digest: Of its images.
    """

    space: str
    seed: int
    epochs: int
    data: str
    digest: str
    quick: bool

    @cached_property
    def training(self) -> Training:
        """As the other studies keep theirs."""
        recipe = study_recipe("one-cycle", self.epochs, self.seed)
        if self.quick:
            recipe = changed(recipe, {"batch_size": QUICK_IMAGES}, {})
        return Training(self.space, recipe, self.data, self.digest)

    def train(self, on: str, worker: int = 0) -> None:
        """Go on to the end, or read that it has come there."""
        images = open_images(self.data)
        if self.quick:
            split = images.split
            images.split = Split(
                split.train[: 2 * QUICK_IMAGES], split.search[:QUICK_IMAGES], split.validation
            )
        compute = ComputeSettings(choose_device(on, worker))
        trainer = Trainer(
            get_space(self.space), images, self.training.recipe, self.training.folder, compute=compute
        )
        trainer.run(self._report)

    def _report(self, progress: Progress) -> None:
        if progress.step % REPORT_STEPS == 0:
            print(f"{self.training.folder.name}: step {progress.step} of {progress.steps}", flush=True)

    def judge(self, on: str, worker: int = 0) -> Judges:
        """By images of the search split, each network once ever."""
        images = open_images(self.data)
        if self.quick:
            images.split = replace(images.split, search=images.split.search[:QUICK_IMAGES])
        return judges(self.training, images, on, worker, 1 if self.quick else CALIBRATION_BATCHES)


def supernets(options: Options, space: str, epochs: int) -> list[MacroSupernet]:
    """One for each seed; `UsageError` where no images are named."""
    if options.data is None and not options.quick:
        raise UsageError("this study trains supernets; give --data, such as cifar10:DIR, or --quick")
    data = options.data or "digits"
    digest = open_images(data).source.digest
    return [MacroSupernet(space, seed, epochs, data, digest, options.quick) for seed in range(options.seeds)]


def same_in(space: Space, arch: Arch) -> Arch:
    """A network of `SPACE` in another space of the same choices."""
    return Arch(space, arch.resolution, arch.head, arch.classes, arch.stages)
