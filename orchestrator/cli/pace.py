"""How many are left, and how long they will take at the pace of those before."""

from __future__ import annotations

CACHED_S = 0.05
"""What comes sooner after the one before it came from a cache: it tells nothing of the others."""


class Pace:
    """Looks at the steps of a task as they come; begins anew where their total or their order does."""

    def __init__(self) -> None:
        self._total, self._done, self._seen_s = 0, 0, 0.0
        self._first, self._first_s = 0, 0.0

    def left(self, done: int, total: int, now_s: float) -> str:
        """`36 left, about 3 min` of a step at this moment; empty as long as nobody can know."""
        begins = total != self._total or done < self._done or now_s - self._seen_s < CACHED_S
        if begins:
            self._first, self._first_s = done, now_s
        self._total, self._done, self._seen_s = total, done, now_s
        if done >= total or done <= self._first:
            return ""
        each_s = (now_s - self._first_s) / (done - self._first)
        return f"{total - done} left, about {duration(each_s * (total - done))}"


def duration(seconds: float) -> str:
    """`50 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
