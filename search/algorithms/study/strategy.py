"""How architectures are proposed: strategies by name, those of the package and those of a user's code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.algorithms.record.result import Evaluated
from search.algorithms.study.study import Study
from search.spaces import Arch
from search.spaces.plugins import load_installed


class Strategy(ABC):
    """Proposes architectures, a generation at a time, and is told how good they are; made anew for each search.

    Attributes:
        study: What may be proposed, what was evaluated so far, and means to draw and to breed.
        skeletons: For the record, how many skeletons it began with; 0 where it knows none.
    """

    skeletons = 0

    def __init__(self, study: Study):
        self.study = study

    @abstractmethod
    def propose(self, count: int) -> Sequence[Arch]:
        """Up to `count` architectures for the next generation; none ends the search.

        They must be within the budget, as those of `study.fresh` and `study.breed` are. What was evaluated
        before is not evaluated again.
        """

    def tell(self, evaluated: Mapping[Arch, Evaluated]) -> None:  # noqa: B027 - most look at the study
        """Hear of the generation that was proposed last; the study knows of it already."""


Own = TypeVar("Own", bound=type[Strategy])

STRATEGIES: Registry[type[Strategy]] = Registry("strategy", load_installed)


def register_strategy(name: str) -> Callable[[Own], Own]:
    """Class decorator of a `Strategy`; `UsageError` where the name is taken or the class is not one."""

    def register(own: Own) -> Own:
        if not (isinstance(own, type) and issubclass(own, Strategy)):
            raise UsageError(f"strategy {name!r}: {own!r} is not a subclass of search.algorithms.Strategy")
        STRATEGIES.add(name, own)
        return own

    return register


def strategy_names() -> tuple[str, ...]:
    """Of all that are registered."""
    return STRATEGIES.names()


def get_strategy(name: str) -> type[Strategy]:
    """A strategy by name; `UsageError` with close names where there is none."""
    return STRATEGIES.get(name)
