"""When a run is warm: its models are visited in turn until their latencies stop falling.

A processor's clock climbs for as long as a tenth of a second after an idle moment, and before every run lie a
round trip, a garbage collection and whatever else the device did. androidx benchmark's WarmupManager compares a
fast and a slow moving average of one benchmark's times; here several models of different size share a run, so that
medians of windows are compared. Kotlin's and Swift's agents do the same in integers: protocol/golden/ramps.json.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

WINDOW_NS = 50_000_000
"""A window is whole rounds of at least this time: more than the 32 ms in which Linux' load tracking, which chooses
the clock, forgets half of what was before."""

WINDOW_ROUNDS = 15
"""Medians are those of a window's last rounds, so that a run of tiny models keeps no more of them than this."""

FALL_PERCENT = 1
"""A window is still falling where the sum of its medians is lower than the window's before by more than this."""

STEADY_WINDOWS = 2
"""Windows in a row that do not fall: one alone may be slow by chance."""


class Ramp:
    """Follows rounds of warm-up, in each of which every model is executed once.

    `ns` and `rounds` are the time spent in the models and how often each was executed; `steady` says whether the
    latencies had stopped falling when it ended, rather than `bound_ns` gone by.
    """

    def __init__(self, bound_ns: int) -> None:
        self._bound_ns = bound_ns
        self.ns = self.rounds = 0
        self.steady = False
        self._last_rounds: deque[Sequence[int]] = deque(maxlen=WINDOW_ROUNDS)
        self._window_ns = self._quiet_windows = 0
        self._level_ns: int | None = None

    def goes_on(self, round_ns: Sequence[int]) -> bool:
        """Take in a round's nanoseconds, one for each model; whether another round is due."""
        taken_ns = sum(round_ns)
        self.ns += taken_ns
        self.rounds += 1
        self._window_ns += taken_ns
        self._last_rounds.append(round_ns)
        if self._window_ns >= WINDOW_NS:
            self._end_window()
        return not self.steady and self.ns < self._bound_ns

    def _end_window(self) -> None:
        middle = (len(self._last_rounds) - 1) // 2
        level_ns = sum(sorted(times)[middle] for times in zip(*self._last_rounds, strict=True))
        if self._level_ns is not None:
            fell = 100 * level_ns < (100 - FALL_PERCENT) * self._level_ns
            self._quiet_windows = 0 if fell else self._quiet_windows + 1
        self._level_ns, self._window_ns = level_ns, 0
        self._last_rounds.clear()
        self.steady = self._quiet_windows >= STEADY_WINDOWS
