"""Objectives by name: those of the package, and those that a user's code registers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.algorithms.interfaces.objective import Movable, Objective
from search.spaces.plugins import load_installed

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
