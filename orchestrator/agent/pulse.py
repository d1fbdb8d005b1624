"""What a run looks after between its executions: whether its client is there, and that it hears from it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pulse:
    """Asked with the number of executions so far; calls `beat` with it, if at all, where `every_s` have gone by.

    `client_is_there` says whether to go on.
    """

    def __init__(
        self,
        client_is_there: Callable[[], bool],
        beat: Callable[[int], None],
        every_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client_is_there, self._beat, self._every_s, self._clock_s = (
            client_is_there,
            beat,
            every_s,
            clock_s,
        )
        self._last_s = clock_s()

    def __call__(self, executions: int) -> bool:
        if self._clock_s() - self._last_s >= self._every_s:
            self._beat(executions)
            self._last_s = self._clock_s()
        return self._client_is_there()
