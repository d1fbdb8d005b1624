"""Signs of life to a client that waits: between the executions of a run, and beside what can't be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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


@contextmanager
def beating(beat: Callable[[], None], every_s: float) -> Iterator[None]:
    """Within, a thread of its own calls `beat` every `every_s` seconds (0: never), until that raises OSError.

    None is under way any more when this is left.
    """
    if not every_s:
        yield
        return
    done = threading.Event()

    def run() -> None:
        try:
            while not done.wait(every_s):
                beat()
        except OSError:
            return

    thread = threading.Thread(target=run, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
