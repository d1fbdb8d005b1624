"""Faults that `make soak` injects, and what each try of one cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What one seed of a fault cost.

    `lost` and `doubled` count samples, steps or evaluations; `wrong` counts tries whose result differs from that
    of an undisturbed run, that crash, or that accept a changed figure; `hung` counts tries that do not end in
    time. `detail` says how to see it again.
    """

    tries: int = 1
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    hung: int = 0
    detail: str = ""

    @property
    def clean(self) -> bool:
        """Return whether nothing was lost, doubled, wrong or hung."""
        return not (self.lost or self.doubled or self.wrong or self.hung)


@dataclass(frozen=True)
class Fault:
    """A kind of fault: `run(seed, folder)` makes the tries of one seed in an empty folder.

    `seeds` is how many seeds a complete soak runs. `missing()` returns why the fault can't be injected on this
    machine, or an empty string.
    """

    name: str
    run: Callable[[int, Path], Outcome]
    seeds: int
    missing: Callable[[], str] = lambda: ""
