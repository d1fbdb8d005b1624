"""Calls at a steady rate, as a camera's frames come: the processor idles between them, and its clock falls."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """Moments `period_ns` apart on `clock`. What comes late shifts all that follow, so that none are crowded."""

    def __init__(self, period_ns: int, clock: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self._period_ns, self._clock, self._sleep = period_ns, clock, sleep
        self._next_ns = 0

    def wait(self) -> None:
        """Until the next moment; the first one is now."""
        now_ns = self._clock()
        if now_ns < self._next_ns:
            self._sleep((self._next_ns - now_ns) / 1e9)
        self._next_ns = max(self._next_ns, now_ns) + self._period_ns
