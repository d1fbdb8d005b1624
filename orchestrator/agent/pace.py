"""What happens between calls: the processor idles at a steady rate, as with a camera's frames, or is kept busy."""

from __future__ import annotations

import time
from collections.abc import Callable

KEEP_WARM_NS = 500_000
"""Clocks of phones rise within a fraction of a millisecond of work."""


def spin() -> None:
    """Keep the processor busy for `KEEP_WARM_NS`."""
    end_ns = time.perf_counter_ns() + KEEP_WARM_NS
    while time.perf_counter_ns() < end_ns:
        pass


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
