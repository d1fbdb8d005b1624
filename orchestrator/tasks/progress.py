"""Progress of a task: a callback that is called with steps and notes; `print` is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """The current activity and how far it is.

    Attributes:
        what: The activity.
        done: Finished parts of it.
        total: Number of parts; 0 if unknown.
        detail: More about this step, such as a speed.
    """

    what: str
    done: int = 0
    total: int = 0
    detail: str = ""

    def __str__(self) -> str:
        """Return `exporting (3/8), detail`."""
        counted = f"{self.what} ({self.done}/{self.total})" if self.total else self.what
        return f"{counted}, {self.detail}" if self.detail else counted


@dataclass(frozen=True)
class Note:
    """A line that stays: what was left out and why, where a file was written."""

    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


Event = Step | Note
Progress = Callable[[Event], None]


def silent(_: Event) -> None:
    """Ignore progress."""


def steps(progress: Progress) -> Callable[[str, int, int], None]:
    """Return the callback (what, done, total) that the measuring engine takes."""
    return lambda what, done, total: progress(Step(what, done, total))
