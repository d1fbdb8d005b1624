"""Objectives: what a search maximises, by name, and the additive surrogate that can smooth their values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from luts.format.errors import UsageError
from luts.format.registry import Registry
from luts.format.schema import Floats
from search.algorithms.record import BACKBONE_ACCURACY, INHERITED_ACCURACY, INHERITED_LIKELIHOOD, MACS, NASWOT
from search.spaces import Arch
from search.spaces.plugins import load_installed
from search.spaces.registry import without_task

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy


class Objective(Protocol):
    """Evaluates one architecture after another; evaluations are costly, so each is requested once."""

    @property
    def fingerprint(self) -> str:
        """Cache key: names everything besides the architecture that decides a value, such as weights and images.

        Values are stored under it and used again wherever it is the same.
        """

    def accuracy(self, arch: Arch) -> float:
        """Return top-1 on held-out images, or any other value to maximise, 0 to 1; the same at every call."""


@runtime_checkable
class MovableObjective(Protocol):
    """An objective that can compute on another device than the CPU; an objective need not be one."""

    def move_to(self, on: str, worker: int = 0) -> None:
        """Compute on `cpu`, `cuda` or `mps`, in the worker with this number; this changes the fingerprint."""


class StreamingEvaluator(Protocol):
    """Evaluates many architectures in any order: in one process, in several, or on a cluster."""

    @property
    def fingerprint(self) -> str:
        """The objective's fingerprint."""

    def stream(self, archs: Sequence[Arch]) -> Iterable[tuple[Arch, float]]:
        """Yield each architecture once with its accuracy, as soon as that is known."""


@runtime_checkable
class Evaluator(Protocol):
    """Evaluates one generation of a search at a time."""

    @property
    def fingerprint(self) -> str:
        """The objective's fingerprint."""

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Return accuracies in the order of `archs`; for an architecture the same at every call."""


def checked_accuracy(arch: Arch, accuracy: float) -> float:
    """Return the accuracy as a float; raise UsageError ("objective_out_of_range") unless it is in 0 to 1."""
    if not 0 <= accuracy <= 1:
        raise UsageError(
            f"the objective returns {accuracy:g} for {arch.to_json()}; scale it to 0 to 1",
            code="objective_out_of_range",
        )
    return float(accuracy)


@dataclass(frozen=True)
class InProcess:
    """Evaluates one architecture after another in this process, without a cache."""

    objective: Objective

    @property
    def fingerprint(self) -> str:
        """The objective's fingerprint."""
        return self.objective.fingerprint

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Yield each architecture with its accuracy, in the order of `archs`."""
        for arch in archs:
            yield arch, self.objective.accuracy(arch)

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Return accuracies in the order of `archs`."""
        return [self.objective.accuracy(arch) for arch in archs]


OpensObjective = Callable[[Path | None, str | None], Objective]
"""Called with the folder of the supernet and the text of the image source that a search was given, or None."""

Own = TypeVar("Own", bound=OpensObjective)

OBJECTIVES: Registry[OpensObjective] = Registry("objective", load_installed)


def register_objective(name: str) -> Callable[[Own], Own]:
    """Return a decorator that registers a class or function that opens an objective (`OpensObjective`).

    Raises:
        UsageError: the name is taken.
    """
    return OBJECTIVES.register(name)


def objective_names() -> tuple[str, ...]:
    """Return the names of all registered objectives."""
    return OBJECTIVES.names()


def open_objective(name: str, supernet: Path | None = None, data: str | None = None) -> Objective:
    """Open the objective with this name; raise UsageError with similar names if there is none."""
    return OBJECTIVES.get(name)(supernet, data)


def move_objective(objective: Objective, on: str, worker: int = 0) -> Objective:
    """Return the objective, moved to a device; raise UsageError ("objective_not_movable") if it cannot be moved."""
    if isinstance(objective, MovableObjective):
        objective.move_to(on, worker)
    elif on not in ("auto", "cpu"):
        raise UsageError(
            f"the objective has no move_to, so it chooses its device itself; leave --on {on} out",
            code="objective_not_movable",
        )
    return objective


@dataclass(frozen=True)
class ObjectiveOpener:
    """How a worker opens a registered objective: it reads weights and images itself, they are not sent to it."""

    name: str
    supernet: Path | None = None
    data: str | None = None
    on: str = "cpu"

    def open(self, worker: int = 0) -> Objective:
        """Open it with one thread of torch: a pool has a worker for each core, or for each GPU."""
        objective = move_objective(open_objective(self.name, self.supernet, self.data), self.on, worker)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        return objective


@register_objective(INHERITED_ACCURACY)
def inherited_accuracy(supernet: Path | None, data: str | None) -> Objective:
    """Open top-1 on the search split of the supernet's images; `data`: where they are now."""
    return _inherited(INHERITED_ACCURACY, supernet, data)


@register_objective(INHERITED_LIKELIHOOD)
def inherited_likelihood(supernet: Path | None, data: str | None) -> Objective:
    """Open the probability of the labels of the same images."""
    from search.supernet.inherit import InheritedLikelihood  # imports torch

    return InheritedLikelihood(_inherited(INHERITED_LIKELIHOOD, supernet, data))


@register_objective(BACKBONE_ACCURACY)
def backbone_accuracy(supernet: Path | None, data: str | None) -> Objective:
    """Open top-1 of the classifier that has the same backbone as a network for detection or segmentation."""
    inherited = _inherited(BACKBONE_ACCURACY, supernet, data)
    return BackboneAccuracy(inherited, inherited.data.classes)


@register_objective(MACS)
def macs(_supernet: Path | None, _data: str | None) -> Objective:
    """Open the objective that needs no supernet: the most conv+linear MACs win."""
    return MacsObjective()


@register_objective(NASWOT)
def naswot(_supernet: Path | None, data: str | None) -> Objective:
    """Open NASWOT on random weights; without images it sees noise."""
    from search.algorithms.naswot import NaswotScore  # imports torch

    return NaswotScore.open(data)


def _inherited(objective: str, supernet: Path | None, data: str | None) -> InheritedAccuracy:
    if supernet is None:
        raise UsageError(
            f"objective {objective} evaluates a trained supernet; add --supernet DIR",
            code="supernet_required",
        )
    from search.supernet.inherit import open_inherited  # imports torch

    return open_inherited(supernet, data)


@dataclass(frozen=True)
class BackboneAccuracy:
    """Evaluates a network with another task's head by the classifier of its backbone, which has `classes`."""

    inherited: Objective
    classes: int

    @property
    def fingerprint(self) -> str:
        """The classifiers' own: heads change nothing."""
        return self.inherited.fingerprint

    def move_to(self, on: str, worker: int = 0) -> None:
        """Compute on this device."""
        move_objective(self.inherited, on, worker)

    def accuracy(self, arch: Arch) -> float:
        """Return the classifier's top-1, 0 to 1."""
        return self.inherited.accuracy(without_task(arch).with_classes(self.classes))


@dataclass(frozen=True)
class MacsObjective:
    """Conv+linear MACs m as m / (m + 1e9), which is in 0 to 1 and increases with m."""

    fingerprint: str = "conv+linear MACs"

    def accuracy(self, arch: Arch) -> float:
        """Return the value of an architecture."""
        count = arch.macs().conv_linear
        return count / (count + 1e9)


PENALTIES = np.logspace(-3, 3, 13)
"""Candidates for the penalty of the ridge regression; leave-one-out cross-validation chooses among them."""


class AdditiveModel:
    """Ridge regression on the choices of an architecture: a sum over them, as a LUT is a sum over blocks.

    Features are the one-hot choices of every stage, which stages there are, the resolution and the head.
    """

    def __init__(self, archs: Sequence[Arch], values: Sequence[float] | Floats):
        """Fit the model to the values of these architectures."""
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline

        self._fitted = make_pipeline(DictVectorizer(), RidgeCV(PENALTIES))
        self._fitted.fit(list(map(_choices, archs)), np.asarray(values))

    def predict(self, archs: Sequence[Arch]) -> list[float]:
        """Return predictions in the order of `archs`."""
        return [float(value) for value in self._fitted.predict(list(map(_choices, archs)))]


LEAST = 1e-6
"""Smallest value whose logarithm is taken."""


@dataclass(frozen=True)
class SmoothedEvaluator:
    """An `Evaluator` that returns the weighted mean of an architecture's own value and an additive model's.

    Both are logarithms, so the mean is geometric. Interactions between choices are in part artefacts of weight
    sharing: on NAS-Bench-Macro the sum of single choices ranks networks more as training each alone does, and the
    mean of both does so most (docs/studies/nasbench-macro.md).

    Attributes:
        sample: Architectures that the model is fitted to.
        share: Weight of the model in the mean.
    """

    evaluator: Evaluator
    sample: Sequence[Arch]
    share: float

    @property
    def fingerprint(self) -> str:
        """The evaluator's: weight and sample size are a search's settings, and its seed draws the sample."""
        return self.evaluator.fingerprint

    @cached_property
    def model(self) -> AdditiveModel:
        """The fitted model; its first use evaluates the sample."""
        return AdditiveModel(self.sample, self._logarithms(self.sample))

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Return the means in the order of `archs`, at most 1."""
        predicted, own = self.model.predict(archs), self._logarithms(archs)
        mean = self.share * np.array(predicted) + (1 - self.share) * own
        return [float(value) for value in np.exp(np.minimum(mean, 0.0))]

    def _logarithms(self, archs: Sequence[Arch]) -> Floats:
        logarithms: Floats = np.log(np.maximum(self.evaluator.accuracies(archs), LEAST))
        return logarithms


def _choices(arch: Arch) -> Mapping[str, str]:
    """Return the name and value of each choice."""
    chosen = {"resolution": str(arch.resolution), "head": arch.head}
    for stage, values in zip(arch.search_space.stages, arch.stages, strict=False):
        chosen[stage.name] = "there"
        chosen |= {
            f"{stage.name}.{name}": str(stage.shown(name, value))
            for name, value in zip(stage.names, values, strict=True)
        }
    return chosen
