"""Evaluation of candidates in processes or on a Ray cluster, each architecture once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.format.errors import (
    OUT_OF_MEMORY,
    BlocktimeError,
    InvalidArtifactError,
    StorageError,
    is_out_of_memory,
)
from luts.format.files import read_bytes
from luts.format.processes import open_cluster, start_worker, worker_context
from search.algorithms.objectives import Executor, Objective, checked_accuracy
from search.spaces import Arch
from search.spaces.plugins import PickleWithPlugins

MAX_BYTES = 1 << 30
"""About two million lines."""

MAX_FINGERPRINT_CHARS = 4096


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluator: str = Field(min_length=1, max_length=MAX_FINGERPRINT_CHARS)
    arch: str = Field(max_length=64 * 1024)
    accuracy: float = Field(ge=0, le=1)


class AccuracyFile:
    """The lines of one objective, in a file with those of others; of two for an architecture the first counts."""

    def __init__(self, path: Path, fingerprint: str, shared: Path | None = None):
        """Read it, and before it the lines of a shared file, which is never written.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last.
        """
        self._path, self._fingerprint = path, fingerprint
        self._known: dict[str, float] = {}
        self._read_bytes, self._read_lines = 0, 0
        if shared is not None:
            lines = read_bytes(shared, MAX_BYTES, "make it readable").split(b"\n")[:-1]
            for number, text in enumerate(lines, start=1):
                self._learn(text, shared, number)
        self.read()

    def read(self) -> Mapping[str, float]:
        """Accuracies by the JSON of their architectures, with what was written since the last look; it goes on
        to grow with this object."""
        if self._path.exists():
            with self._locked():
                pass
        return self._known

    def append(self, arch: str, accuracy: float) -> None:
        """Write a line, unless another process has written one of this architecture."""
        line = _Line(evaluator=self._fingerprint, arch=arch, accuracy=accuracy)
        data = line.model_dump_json().encode() + b"\n"
        with self._locked() as file:
            if arch in self._known:
                return
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                file.truncate(self._read_bytes)
                raise StorageError(
                    f"{self._path}: cannot save an accuracy ({error.strerror}); free some space and repeat"
                ) from error
            self._read_bytes += len(data)
            self._read_lines += 1
        self._known[arch] = accuracy

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, held alone, all its lines known, at its end; what a killed writer left half is cut off."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise BlocktimeError(
                f"{self._path}: cannot keep accuracies ({error.strerror}); make the folder writable"
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read_on(file)
            yield file

    def _read_on(self, file: BinaryIO) -> None:
        """Learn the lines since the last look."""
        size = file.seek(0, 2)
        if size > MAX_BYTES:
            raise InvalidArtifactError(f"{self._path}: over {MAX_BYTES} bytes; remove it to start over")
        if size < self._read_bytes:
            raise InvalidArtifactError(f"{self._path}: was cut short while it was in use; repeat the command")
        file.seek(self._read_bytes)
        data = file.read(size - self._read_bytes)
        whole = data[: data.rfind(b"\n") + 1]
        for text in whole.splitlines():
            self._read_lines += 1
            self._learn(text, self._path, self._read_lines)
        self._read_bytes += len(whole)
        if len(whole) < len(data):
            file.truncate(self._read_bytes)

    def _learn(self, text: bytes, path: Path, number: int) -> None:
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidArtifactError(
                f"{path}: line {number} is not an accuracy; remove the line, or the file to start over"
            ) from error
        if line.evaluator == self._fingerprint:
            self._known.setdefault(line.arch, line.accuracy)


Watch = Callable[[Arch, float], None]
"""Called with an architecture and its accuracy as soon as it is known."""


class CachedEvaluator:
    """An `Evaluator` that remembers in a file, which other checkpoints, data and processes may share.

    What another process has written until a call is known to that call; where two evaluate the same at the
    same time, both keep the first line.
    """

    def __init__(
        self, executor: Executor, path: Path, watch: Watch | None = None, shared: Path | None = None
    ):
        """Read what is known, in a further file too that may not be written; `watch` hears of every architecture
        asked for, known or not.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last; a cut last line (a killed run) is dropped.
        """
        self._executor, self._watch = executor, watch
        self._file = AccuracyFile(path, executor.fingerprint, shared)

    @property
    def fingerprint(self) -> str:
        return self._executor.fingerprint

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked; what is not in the file is evaluated and written as soon as it is known."""
        asked = {arch.to_json(): arch for arch in archs}
        known = self._file.read()
        # Sorted, those that begin alike follow one another, and share what their first blocks give.
        missing = [arch for text, arch in sorted(asked.items()) if text not in known]
        if self._watch is not None:
            for text, arch in asked.items():
                if text in known:
                    self._watch(arch, known[text])
        for arch, accuracy in self._executor.stream(missing) if missing else ():
            self._file.append(arch.to_json(), checked_accuracy(arch, accuracy))
            if self._watch is not None:
                self._watch(arch, accuracy)
        return [known[arch.to_json()] for arch in archs]


class Opener(Protocol):
    """Says how a worker makes its objective; goes to it by pickle, so a small value of a module's top level."""

    def open(self, worker: int = 0) -> Objective:
        """Load everything, once for each worker, which are numbered from 0."""


class WorkerError(BlocktimeError):
    """A worker ended before its answer; the answers of the others are kept."""


def serve(connection: Connection, opener: PickleWithPlugins, fingerprint: str, worker: int = 0) -> None:
    """A worker's life; Ctrl-C is the parent's to handle, whose end closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            objective = open_checked(opener.value(), fingerprint, worker)
            while True:
                connection.send(float(objective.accuracy(connection.recv())))
        except BlocktimeError as error:
            connection.send(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            connection.send(BlocktimeError(why_failed(error)))


def why_failed(error: BaseException) -> str:
    """What is said of an evaluation that failed as nobody expected; one line."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    first = (str(error) or "no message").splitlines()[0]
    return f"evaluation failed with {type(error).__name__}: {first}; report it"


def open_checked(opener: Opener, fingerprint: str, worker: int = 0) -> Objective:
    """What the opener gives; InvalidArtifactError where checkpoint or images are others than the caller's."""
    objective = opener.open(worker)
    if objective.fingerprint != fingerprint:
        raise InvalidArtifactError(
            "a worker has another checkpoint or other images than the search began with; repeat the search"
        )
    return objective


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
            args=(theirs, PickleWithPlugins.of(self._opener), self._fingerprint, len(self._processes)),
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


MAX_REASON = 200
"""Characters of Ray's own account of a loss, whose last line names the cause."""


class RayPool:
    """An `Executor` of Ray actors. Checkpoint and images must lie at the same paths on every node.

    Joins the cluster of $RAY_ADDRESS (`ray job submit` and `ray start` set it), else starts one on this
    machine for as long as the pool is open.
    """

    def __init__(self, opener: Opener, fingerprint: str, workers: int):
        """Connect.

        Raises:
            UsageError: Ray is not installed.
            BlocktimeError: the cluster does not answer.
        """
        self._cluster = open_cluster("--cluster")
        self._ray = ray = self._cluster.ray
        self._fingerprint = fingerprint
        remote = ray.remote(num_cpus=1)(_Worker)
        carried = PickleWithPlugins.of(opener, ray.cloudpickle.dumps)
        self._actors: list[Any] = [remote.remote(carried, fingerprint) for _ in range(workers)]

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Accuracies as they come in.

        Raises:
            WorkerError: a worker or its node died; what the others were at has been given out before.
            BlocktimeError: as the evaluation raised it.
        """
        waiting, idle = list(reversed(archs)), list(self._actors)
        busy: dict[Any, tuple[Any, Arch]] = {}
        failure: BlocktimeError | None = None
        while waiting or busy:
            while waiting and idle and failure is None:
                actor, arch = idle.pop(), waiting.pop()
                busy[actor.accuracy.remote(arch)] = actor, arch
            if not busy:
                break
            done, _ = self._ray.wait(list(busy), num_returns=1)
            actor, arch = busy.pop(done[0])
            answer = self._answer(done[0])
            if isinstance(answer, float):
                idle.append(actor)
                yield arch, answer
            else:
                failure = failure or answer
        if failure is not None:
            raise failure

    def _answer(self, reference: Any) -> float | BlocktimeError:
        try:
            return float(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, BlocktimeError):
                return cause
            return BlocktimeError(why_failed(cause))
        except self._ray.exceptions.RayError as error:
            last = [type(error).__name__, *str(error).split("\n")][-1].strip()[:MAX_REASON]
            return WorkerError(
                f"a Ray worker was lost ({last}); what is done is kept, run the same command to go on"
            )

    def close(self) -> None:
        """End the actors, and the cluster where this pool started it."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._cluster.close()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One actor."""

    def __init__(self, opener: PickleWithPlugins, fingerprint: str):
        self._opener, self._fingerprint = opener, fingerprint
        self._objective: Objective | None = None

    def accuracy(self, arch: Arch) -> float:
        """Opened at the first call, so that a failure to open reads like one to evaluate."""
        if self._objective is None:
            self._objective = open_checked(self._opener.value(), self._fingerprint)
        return self._objective.accuracy(arch)
