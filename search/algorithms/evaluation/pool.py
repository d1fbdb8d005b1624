"""Evaluation in parallel: worker processes, each with the network and images of its own, one at a time each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from luts.format.errors import BlocktimeError
from luts.format.workers import start_worker, worker_context
from search.algorithms.evaluation.worker import Opener, WorkerError, serve
from search.spaces import Arch
from search.spaces.plugins import Carried

STOP_S = 5.0
"""A worker that has nothing to do ends at once; one that still evaluates then is killed."""


class ProcessPool:
    """An `Executor` of several processes, started when the first architecture is asked for.

    All evaluations happen in workers, however many there are, so that their number can't change an accuracy.
    """

    def __init__(self, opener: Opener, fingerprint: str, workers: int):
        """`fingerprint`: what every worker must find, as the caller did."""
        self._opener, self._fingerprint, self._workers = opener, fingerprint, workers
        # torch too, where this process has needed it
        self._context = worker_context(type(opener).__module__, *({"torch"} & sys.modules.keys()))
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Arch] = {}
        self._processes: dict[Connection, BaseProcess] = {}

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Accuracies as they come in.

        Raises:
            WorkerError: a worker died; what the others were at has been given out before.
            BlocktimeError: as the evaluation raised it.
        """
        waiting = list(reversed(archs))
        failure: BlocktimeError | None = None
        while waiting or self._busy:
            while waiting and failure is None and (connection := self._free()) is not None:
                self._assign(connection, waiting.pop())
            if not self._busy:
                break
            for ready in wait(list(self._busy)):
                assert isinstance(ready, Connection)
                arch, answer = self._busy.pop(ready), self._answer(ready)
                if isinstance(answer, float):
                    self._idle.append(ready)
                    yield arch, answer
                else:
                    failure = failure or answer
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End all workers: the idle ones by themselves, the others by force."""
        for connection in self._processes:
            connection.close()
        for connection, process in self._processes.items():
            if connection in self._busy:
                process.kill()
            process.join(STOP_S)
            if process.is_alive():
                process.kill()
        self._processes.clear()
        self._busy.clear()
        self._idle.clear()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _free(self) -> Connection | None:
        if self._idle:
            return self._idle.pop()
        if len(self._processes) >= self._workers:
            return None
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, Carried.of(self._opener), self._fingerprint, len(self._processes)),
            daemon=True,
        )
        start_worker(process)
        theirs.close()
        self._processes[ours] = process
        return ours

    def _assign(self, connection: Connection, arch: Arch) -> None:
        self._busy[connection] = arch
        with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed where its answer is awaited
            connection.send(arch)

    def _answer(self, connection: Connection) -> float | BlocktimeError:
        """A worker's answer; one that failed is not used again."""
        try:
            answer: float | BlocktimeError = connection.recv()
            if isinstance(answer, float):
                return answer
        except (EOFError, ConnectionResetError):
            answer = WorkerError("")
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        if isinstance(answer, WorkerError):
            return WorkerError(
                f"an evaluating process died ({_how(process.exitcode)}); what is done is kept, "
                "run the same command to go on, with fewer --workers if memory is short"
            )
        return answer


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
