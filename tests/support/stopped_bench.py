"""`bench` that is stopped at the same moment in every run, however fast the machine is.

    python -m tests.support.stopped_bench SIGNAL WHAT COUNT[,COUNT...] ARGUMENTS...

WHAT is `chunks`: SIGKILL comes in the middle of writing samples of a batch to the journal, after COUNT whole chunks
of them from this process, so that neither a self-test nor what else a journal holds moves the moment; or
`accuracies`: it comes when workers have given COUNT of them. Other signals come shortly
after the same moment, while it works: SIGINT to the workers too, as Ctrl-C of a terminal does, SIGSTOP to it alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from orchestrator.cli.entry import main
from orchestrator.journal.log import Journal
from search.algorithms.evaluation import ProcessPool
from search.spaces import Arch

_WHILE_IT_WORKS_S = 0.02


class _Stop:
    """Counts up to its signals."""

    def __init__(self, name: str, counts: Sequence[int]) -> None:
        self.kills = name == "SIGKILL"
        self._number, self._counts, self._done = signal.Signals[name], counts, 0

    def is_due(self) -> bool:
        self._done += 1
        return self._done - 1 in self._counts

    def send(self) -> None:
        if self.kills:
            os.kill(os.getpid(), self._number)
        send = os.killpg if self._number == signal.SIGINT else os.kill
        target = 0 if self._number == signal.SIGINT else os.getpid()
        threading.Timer(_WHILE_IT_WORKS_S, send, (target, self._number)).start()


def _stopping_append(stop: _Stop) -> Any:
    append = Journal.append

    def wrapped(self: Journal, record: dict[str, Any]) -> None:
        if record["kind"] == "chunk" and stop.is_due():
            if stop.kills:
                with self.path.open("ab") as file:
                    file.write(b'01234567 {"kind":')
            stop.send()
        append(self, record)

    return wrapped


def _stopping_stream(stop: _Stop) -> Any:
    stream = ProcessPool.stream

    def wrapped(self: ProcessPool, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        for pair in stream(self, archs):
            if stop.is_due():
                stop.send()
            yield pair

    return wrapped


if __name__ == "__main__":
    name, what, counts, *sys.argv[1:] = sys.argv[1:]
    stop = _Stop(name, [int(count) for count in counts.split(",") if count])
    target = (
        mock.patch.object(ProcessPool, "stream", _stopping_stream(stop))
        if what == "accuracies"
        else mock.patch.object(Journal, "append", _stopping_append(stop))
    )
    try:
        with target:
            main()
    finally:
        exec(
            ""
        )  # else CPython ends `python -m` by SIGINT, whatever its exit code, where Ctrl-C met code in an exec
