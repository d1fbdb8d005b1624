"""How good architectures are: what a search maximises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from luts.format.errors import UsageError
from search.spaces import Arch


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
