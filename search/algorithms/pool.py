"""Evaluation in parallel: worker processes, each with the network and images of its own, one at a time each."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Protocol

from luts.errors import BlocktimeError, InvalidArtifactError
from search.spaces import Arch

STOP_S = 5.0
"""A worker that has nothing to do ends at once; one that still evaluates then is killed."""


class Single(Protocol):
    """Evaluates one architecture after another in its own process."""

    @property
    def fingerprint(self) -> str:
        """Everything besides the architecture that decides an accuracy."""

    def accuracy(self, arch: Arch) -> float:
        """Top-1, 0 to 1; the same at every call."""


class Opener(Protocol):
    """Says how a worker makes its `Single`; goes to it by pickle, so a small value of a module's top level."""

    def open(self) -> Single:
        """Load everything, once for each worker."""


class WorkerError(BlocktimeError):
    """A worker ended before its answer; the answers of the others are kept."""


class ProcessPool:
    """A `Judge` of several processes, started when the first architecture is asked for.

    All evaluations happen in workers, however many there are, so that their number can't change an accuracy.
    """

    def __init__(self, opener: Opener, fingerprint: str, workers: int):
        """`fingerprint`: what every worker must find, as the caller did."""
        self._opener, self._fingerprint, self._workers = opener, fingerprint, workers
        self._context = _context(type(opener).__module__)
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
            target=_serve, args=(theirs, self._opener, self._fingerprint), daemon=True
        )
        process.start()
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


def _context(preload: str) -> SpawnContext | ForkServerContext:
    """Fresh processes: spawned on macOS, whose system libraries forbid a fork; elsewhere forked from a server
    that has imported what they need once."""
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def _serve(connection: Connection, opener: Opener, fingerprint: str) -> None:
    """A worker's life; Ctrl-C is the parent's to handle, whose end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            single = open_checked(opener, fingerprint)
            while True:
                connection.send(float(single.accuracy(connection.recv())))
        except BlocktimeError as error:
            connection.send(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            first = (str(error) or "no message").splitlines()[0]
            connection.send(
                BlocktimeError(f"evaluation failed with {type(error).__name__}: {first}; report it")
            )


def open_checked(opener: Opener, fingerprint: str) -> Single:
    """What the opener gives; InvalidArtifactError where checkpoint or images are others than the caller's."""
    single = opener.open()
    if single.fingerprint != fingerprint:
        raise InvalidArtifactError(
            "a worker found another checkpoint or other images than the search began with; repeat the search"
        )
    return single


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
