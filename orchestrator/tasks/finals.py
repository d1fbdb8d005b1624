"""Finals of a search: trainings of single networks, in processes or on a Ray cluster, each resumed if killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from luts.format.errors import UsageError
from luts.format.files import write_json
from orchestrator.agent.device import usable_cores
from orchestrator.tasks.progress import Note, Progress, Step
from orchestrator.tasks.search_options import SearchCommand
from orchestrator.tasks.train import train_classifier
from orchestrator.tasks.train_options import ClassifierOptions
from search.algorithms import CachedEvaluator, SearchResult
from search.algorithms.evaluation import ProcessPool, RayPool
from search.algorithms.finals import FINALS_FILE, Finals, Train, finalists, hold_finals
from search.algorithms.record import Evaluated
from search.spaces import Arch
from search.spaces.registry import arch_from_json
from search.supernet.data.sources import open_source
from search.supernet.inherit import InheritedAccuracy, open_inherited
from search.supernet.model.supernet import choose_device, workers_on
from search.supernet.recipe.recipe import Recipe, changed, get_recipe
from search.supernet.train.parallel import local_device


@dataclass(frozen=True)
class TrainedAlone:
    """An objective: top-1 on the search split after training a network alone; also opens itself in a worker.

    Attributes:
        folder: Gets a folder for each training.
        data: Image source.
        digest: Of its images.
        recipe: With the seed.
        init: `supernet:DIR` to start from inherited weights; None for random ones.
        on: `auto`, `cpu`, `cuda` or `mps`.
    """

    folder: Path
    data: str
    digest: str
    recipe: Recipe
    init: str | None
    on: str

    @property
    def fingerprint(self) -> str:
        """Digest of everything besides the architecture that decides a training."""
        described = (self.recipe.model_dump_json(exclude={"name"}), self.digest, self.init)
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def open(self, worker: int = 0) -> TrainedAlone:
        """Return the objective for a worker, with one thread: a pool has one for each core, or for each GPU."""
        torch.set_num_threads(1)
        os.environ["LOCAL_RANK"] = str(
            choose_device(self.on, worker).index or 0
        )  # the GPU that training takes
        return self

    def training(self, arch: Arch) -> Path:
        """Return the folder of a network's training."""
        name = hashlib.sha256(arch.to_json().encode()).hexdigest()[:12]
        return self.folder / f"{self.fingerprint[:12]}-{name}"

    def evaluator(self, arch: Arch) -> InheritedAccuracy:
        """Return the evaluator of a finished training."""
        return open_inherited(self.training(arch), self.data)

    def accuracy(self, arch: Arch) -> float:
        """Train a network, or resume, and return its top-1, 0 to 1; raises like `train_classifier`."""
        train_classifier(
            ClassifierOptions(
                data=self.data,
                output=self.training(arch),
                arch=arch,
                recipe=self.recipe,
                init=self.init,
                on=self.on,
            )
        )
        evaluator = self.evaluator(arch)
        evaluator.move_to(local_device(self.on))
        return evaluator.accuracy(arch)


@dataclass(frozen=True)
class FinalTrainings:
    """The trainings of a search's finals.

    Attributes:
        first: The objective of the first training; others have the following seeds.
        workers: Processes, or Ray actors.
        cluster: Whether to train on Ray.
    """

    first: TrainedAlone
    workers: int
    cluster: bool

    @classmethod
    def open(
        cls, options: SearchCommand, folder: Path, inherited: InheritedAccuracy | None, seed: int
    ) -> FinalTrainings:
        """Prepare the trainings of a search in a folder; nothing is trained yet.

        Raises:
            UsageError: no such recipe or images, or a recipe for one network.
            InvalidArtifactError: a damaged recipe.
        """
        recipe = get_recipe(options.finals_recipe)
        if recipe.arch is not None:
            raise UsageError(
                f"--finals-recipe {options.finals_recipe} trains one network, {recipe.arch}; leave arch out of it",
                code="recipe_of_one_network",
            )
        if inherited is not None:
            recipe = changed(recipe, {"held_out": inherited.info.split_fraction}, {})
        recipe = changed(recipe, {"seed": seed}, {})
        text = options.data or (inherited.info.source if inherited else "")
        kind, colon, path = text.partition(":")
        text = f"{kind}:{Path(path).resolve()}" if colon else text
        digest = inherited.data.source.digest if inherited else open_source(text).digest
        on = "cpu" if options.cluster else choose_device(options.on).type
        init = None
        if options.finals_inherit:
            assert options.supernet is not None
            init = f"supernet:{options.supernet.resolve()}"
        first = TrainedAlone(folder / "finals", text, digest, recipe, init, on)
        return cls(first, options.workers or workers_on(on, usable_cores()), options.cluster)

    def train(self, archs: Sequence[str], seed: int, progress: Progress) -> Mapping[str, float]:
        """Train networks with a seed; return top-1 by architecture."""
        recipe, done = changed(self.first.recipe, {"seed": seed}, {}), 0
        objective = replace(self.first, recipe=recipe)

        def report(_: Arch, top1: float) -> None:
            nonlocal done
            done += 1
            progress(Step(f"finals: seed {seed}, last {100 * top1:.2f} %", done, len(archs)))

        progress(Step(f"finals: seed {seed}", 0, len(archs)))
        self.first.folder.mkdir(parents=True, exist_ok=True)
        with (RayPool if self.cluster else ProcessPool)(
            objective, objective.fingerprint, min(self.workers, len(archs))
        ) as pool:
            evaluator = CachedEvaluator(pool, self.first.folder / "top1.jsonl", report)
            values = evaluator.accuracies([arch_from_json(arch) for arch in archs])
        return dict(zip(archs, values, strict=True))


def run_finals(
    result: SearchResult,
    options: SearchCommand,
    trainings: FinalTrainings,
    allowed: set[str] | None,
    folder: Path,
    progress: Progress,
) -> Finals:
    """Train the finalists of a search and write `finals.json`; a killed run resumes when it is repeated.

    Args:
        result: The search.
        options: Number of finals and of repeated trainings.
        trainings: How to train.
        allowed: Architectures that were measured within the latency limit; None if nothing was measured.
        folder: Result folder of the search.
        progress: Receives steps.

    Raises:
        UsageError: fewer than two networks can be compared.
        BlocktimeError: a training failed; finished ones are kept.
    """

    def within(row: Evaluated) -> bool:
        return allowed is None or row.arch in allowed

    chosen = finalists(result, options.finals, within)
    if len(chosen) < 2:
        raise UsageError(
            f"only {len(chosen)} networks are within the constraints, so finals compare nothing; leave --finals "
            "out, or allow more",
            code="too_few_finals",
        )
    if len(chosen) < options.finals:
        progress(
            Note(f"note: only {len(chosen)} networks are within the constraints; all of them are finals")
        )
    train: Train = lambda archs, seed: trainings.train(archs, seed, progress)  # noqa: E731
    recipe = trainings.first.recipe
    finals = Finals(
        recipe=f"{recipe.name}, {recipe.epochs} epochs",
        fingerprint=trainings.first.fingerprint,
        inherited=trainings.first.init is not None,
        finals=hold_finals(chosen, train, recipe.seed, options.confirm),
    )
    write_json(folder / FINALS_FILE, finals.model_dump())
    return finals
