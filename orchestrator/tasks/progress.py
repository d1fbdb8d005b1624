"""What a task tells whoever waits for it: a callback that is called with steps and notes; `print` is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """What goes on until the next step; `total` is 0 where nobody knows how many there are.

    `detail`: what else is true at this step, such as a speed; it may change at every step.
    """

    what: str
    done: int = 0
    total: int = 0
    detail: str = ""

    def __str__(self) -> str:
        counted = f"{self.what} ({self.done}/{self.total})" if self.total else self.what
        return f"{counted}, {self.detail}" if self.detail else counted


@dataclass(frozen=True)
class Note:
    """A line to keep: what was left out and why, where a file lies."""

    text: str

    def __str__(self) -> str:
        return self.text


Event = Step | Note
Progress = Callable[[Event], None]


def silent(_: Event) -> None:
    """The progress of a program that nobody watches."""


def steps(progress: Progress) -> Callable[[str, int, int], None]:
    """As the measuring engine tells its steps: what, done, total."""
    return lambda what, done, total: progress(Step(what, done, total))
