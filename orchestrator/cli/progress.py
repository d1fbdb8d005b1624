"""Progress of a task: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli import output
from orchestrator.tasks.progress import Event, Note, Progress, Step

DETAIL_S = 10.0
"""Seconds between lines about one step's details: rare enough for a log file, often enough for a reader."""

CACHED_S = 0.05
"""Steps that follow faster than this came from a cache; they say nothing about the speed of the others."""


class RemainingTime:
    """Estimates the remaining time from the steps of a task; starts over when total or order restart."""

    def __init__(self) -> None:
        """Begin without a step."""
        self._total, self._done, self._seen_s = 0, 0, 0.0
        self._first, self._first_s = 0, 0.0

    def text(self, done: int, total: int, now_s: float) -> str:
        """Return `36 left, about 3 min` at a step; empty as long as the speed is unknown."""
        restarts = total != self._total or done < self._done or now_s - self._seen_s < CACHED_S
        if restarts:
            self._first, self._first_s = done, now_s
        self._total, self._done, self._seen_s = total, done, now_s
        if done >= total or done <= self._first:
            return ""
        each_s = (now_s - self._first_s) / (done - self._first)
        return f"{total - done} left, about {duration(each_s * (total - done))}"


def duration(seconds: float) -> str:
    """Return a time as `50 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show a task's progress: a bar on a terminal, elsewhere lines; notes are lines that stay."""
    if not output.is_terminal():
        yield LineProgress()
        return
    with output.progress_bar() as (bar, task):

        def show(event: Event) -> None:
            if isinstance(event, Note):
                output.say(event.text)
                return
            text = f"{event.what}, {event.detail}" if event.detail else event.what
            bar.start()
            bar.update(task, description=text, completed=event.done, total=event.total or None)

        yield show


class LineProgress:
    """A line when a step begins, at each tenth of it, and every `DETAIL_S` if it has details."""

    def __init__(self) -> None:
        """Begin without a step."""
        self._last = Step("")
        self._tenth, self._said_s = 0, 0.0
        self._remaining = RemainingTime()

    def __call__(self, event: Event) -> None:
        """Print a line if the event says something new."""
        if isinstance(event, Note):
            output.say(event.text)
            self._last = Step("")
            return
        now_s = time.monotonic()
        begins = event.what != self._last.what or event.done < self._last.done
        tenth = 10 * event.done // event.total if event.total else 0
        left = self._remaining.text(event.done, event.total, now_s)
        next_tenth = tenth != self._tenth and event.total > 1
        if begins or next_tenth or (event.detail and now_s - self._said_s >= DETAIL_S):
            uncounted = event.total == 1 or (begins and event.done == 0)
            text = str(Step(event.what, detail=event.detail) if uncounted else event)
            output.say(f"{text}, {left}" if left and not event.detail else text)
            self._said_s = now_s
        self._last, self._tenth = event, tenth
