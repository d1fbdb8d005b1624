"""Objectives by name: those of the package, and those that a user's code registers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from search.algorithms.interfaces.objective import Objective
from search.algorithms.interfaces.registry import Registry

OpensObjective = Callable[[Path | None, str | None], Objective]
"""Called with the folder of the supernet and the text of the image source that a search was given, or None."""

Own = TypeVar("Own", bound=OpensObjective)

OBJECTIVES: Registry[OpensObjective] = Registry("objective")


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


@dataclass(frozen=True)
class ObjectiveOpener:
    """How a worker opens a registered objective: weights and images are read there, not sent to it."""

    name: str
    supernet: Path | None = None
    data: str | None = None

    def open(self) -> Objective:
        """With one thread of torch, if it uses that: a pool has a worker for each core."""
        objective = open_objective(self.name, self.supernet, self.data)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        return objective
