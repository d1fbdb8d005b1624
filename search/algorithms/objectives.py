"""Objectives: what a search maximises, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.algorithms.record import INHERITED_ACCURACY, INHERITED_LIKELIHOOD
from search.spaces import Arch
from search.spaces.plugins import load_installed


class Objective(Protocol):
    """Judges one architecture after another; costly, so each is asked for once."""

    @property
    def fingerprint(self) -> str:
        """Cache key: names everything besides the architecture that decides a value, such as weights and images.

        Values are kept under it on disk and used again wherever it is the same.
        """

    def accuracy(self, arch: Arch) -> float:
        """Top-1 on held-out images or whatever else is wanted large, 0 to 1; the same at every call."""


@runtime_checkable
class Movable(Protocol):
    """An objective that can compute elsewhere than on the CPU; it need not be one."""

    def move_to(self, on: str, worker: int = 0) -> None:
        """Compute on `cpu`, `cuda` or `mps` from now on, in the worker of that number; the fingerprint tells."""


class Executor(Protocol):
    """Evaluates many architectures in any order: in one process, in several, or on a cluster."""

    @property
    def fingerprint(self) -> str:
        """The objective's."""

    def stream(self, archs: Sequence[Arch]) -> Iterable[tuple[Arch, float]]:
        """Each architecture once with its accuracy, as soon as that is known."""


@runtime_checkable
class Evaluator(Protocol):
    """What a search asks, a generation at a time."""

    @property
    def fingerprint(self) -> str:
        """The objective's."""

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked; of an architecture the same at every call."""


def checked_accuracy(arch: Arch, accuracy: float) -> float:
    """The accuracy, as a plain number; `UsageError` for one that no objective may give."""
    if not 0 <= accuracy <= 1:
        raise UsageError(f"the objective gives {arch.to_json()} {accuracy:g}; scale it to 0 to 1")
    return float(accuracy)


@dataclass(frozen=True)
class InProcess:
    """An `Executor` and an `Evaluator`: one after another in this process, nothing remembered."""

    objective: Objective

    @property
    def fingerprint(self) -> str:
        return self.objective.fingerprint

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """As they come."""
        for arch in archs:
            yield arch, self.objective.accuracy(arch)

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked."""
        return [self.objective.accuracy(arch) for arch in archs]


OpensObjective = Callable[[Path | None, str | None], Objective]
"""Called with the folder of the supernet and the text of the image source that a search was given, or None."""

Own = TypeVar("Own", bound=OpensObjective)

OBJECTIVES: Registry[OpensObjective] = Registry("objective", load_installed)


def register_objective(name: str) -> Callable[[Own], Own]:
    """Decorator of a class or function that `OpensObjective`; `UsageError` where the name is taken."""

    def register(own: Own) -> Own:
        OBJECTIVES.add(name, own)
        return own

    return register


def objective_names() -> tuple[str, ...]:
    """Of all that are registered."""
    return OBJECTIVES.names()


def open_objective(name: str, supernet: Path | None = None, data: str | None = None) -> Objective:
    """The objective of a name; `UsageError` with close names where there is none."""
    return OBJECTIVES.get(name)(supernet, data)


def moved(objective: Objective, on: str, worker: int = 0) -> Objective:
    """The objective, which computes there; `UsageError` for one that can't where that is not the CPU."""
    if isinstance(objective, Movable):
        objective.move_to(on, worker)
    elif on not in ("auto", "cpu"):
        raise UsageError(f"the objective computes where it likes, it has no move_to; leave --on {on} out")
    return objective


@dataclass(frozen=True)
class ObjectiveOpener:
    """How a worker opens a registered objective: weights and images are read there, not sent to it."""

    name: str
    supernet: Path | None = None
    data: str | None = None
    on: str = "cpu"

    def open(self, worker: int = 0) -> Objective:
        """With one thread of torch, if it uses that: a pool has a worker for each core, or for each GPU."""
        objective = moved(open_objective(self.name, self.supernet, self.data), self.on, worker)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        return objective


@register_objective(INHERITED_ACCURACY)
def inherited_accuracy(supernet: Path | None, data: str | None) -> Objective:
    """On the search split of the images that the supernet was trained on; `data`: where they lie now."""
    from search.supernet.inherit import open_inherited  # brings in torch

    return open_inherited(_given(supernet, INHERITED_ACCURACY), data)


@register_objective(INHERITED_LIKELIHOOD)
def inherited_likelihood(supernet: Path | None, data: str | None) -> Objective:
    """On the same images, by the probability of their labels."""
    from search.supernet.inherit import InheritedLikelihood, open_inherited

    return InheritedLikelihood(open_inherited(_given(supernet, INHERITED_LIKELIHOOD), data))


def _given(supernet: Path | None, objective: str) -> Path:
    if supernet is None:
        raise UsageError(f"{objective} is that of a trained supernet; give its folder")
    return supernet
