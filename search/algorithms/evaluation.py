"""Evaluation of architectures in processes or on a Ray cluster, each architecture once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.files import AppendFile, Closeable, read_lines
from luts.format.processes import WorkerPool, as_blocktime_error, open_cluster
from luts.format.schema import FrozenModel
from search.algorithms.objectives import Objective, StreamingEvaluator, checked_accuracy
from search.spaces import Arch
from search.spaces.plugins import PickleWithPlugins

MAX_FINGERPRINT_CHARS = 4096


class _Line(FrozenModel):
    evaluator: str = Field(min_length=1, max_length=MAX_FINGERPRINT_CHARS)
    arch: str = Field(max_length=64 * 1024)
    accuracy: float = Field(ge=0, le=1)


_REMEDY = "remove the line, or the file to start over"

OnResult = Callable[[Arch, float], None]
"""Called with an architecture and its accuracy as soon as it is known."""


class CachedEvaluator:
    """An `Evaluator` with a cache file, which other checkpoints, data and processes may share.

    A call uses everything that other processes have written before it. If two processes evaluate an architecture at
    the same time, both use the first line.
    """

    def __init__(
        self,
        evaluator: StreamingEvaluator,
        path: Path,
        on_result: OnResult | None = None,
        shared: Path | None = None,
    ):
        """Read the cache.

        Args:
            evaluator: Evaluates architectures that are not cached.
            path: The cache file; an incomplete last line of a killed run is dropped.
            on_result: Called for every requested architecture, cached or not.
            shared: Another cache file, which is only read.

        Raises:
            InvalidArtifactError: a line other than the last is damaged.
        """
        self._evaluator, self._path, self._on_result = evaluator, path, on_result
        self._known: dict[str, float] = {}
        self._file: AppendFile | None = None
        if shared is not None:
            read_lines(shared, partial(self._add_line, shared), _REMEDY)
        if path.exists():
            self._open()

    @property
    def fingerprint(self) -> str:
        """The objective's fingerprint."""
        return self._evaluator.fingerprint

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Return accuracies in the order of `archs`; each new one is written as soon as it is known."""
        requested = {arch.to_json(): arch for arch in archs}
        if self._file is not None or self._path.exists():
            with self._open().locked():  # reads what other processes have added
                pass
        # sorted, architectures with equal first stages follow one another and share cached activations
        missing = [arch for text, arch in sorted(requested.items()) if text not in self._known]
        if self._on_result is not None:
            for text, arch in requested.items():
                if text in self._known:
                    self._on_result(arch, self._known[text])
        for arch, accuracy in self._evaluator.stream(missing) if missing else ():
            self._write(arch, checked_accuracy(arch, accuracy))
            if self._on_result is not None:
                self._on_result(arch, accuracy)
        return [self._known[arch.to_json()] for arch in archs]

    def _write(self, arch: Arch, accuracy: float) -> None:
        """Write a line, unless another process has written one for this architecture."""
        line = _Line(evaluator=self.fingerprint, arch=arch.to_json(), accuracy=accuracy)
        file = self._open()
        with file.locked():
            if line.arch not in self._known:
                file.append(line.model_dump_json().encode() + b"\n")
                self._known[line.arch] = accuracy

    def _open(self) -> AppendFile:
        if self._file is None:
            self._file = AppendFile(
                self._path,
                partial(self._add_line, self._path),
                remedy=_REMEDY,
                elsewhere="make the folder writable",
                again="repeat the command",
                shared=True,
                durable=False,
            )
        return self._file

    def _add_line(self, path: Path, text: bytes) -> bool:
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidArtifactError(
                f"{path} has a line that is not an accuracy; {_REMEDY}", code="damaged_file"
            ) from error
        if line.evaluator == self.fingerprint:
            self._known.setdefault(line.arch, line.accuracy)
        return True


class Opener(Protocol):
    """How a worker opens its objective; it is pickled, so its class is defined at the top level of a module."""

    def open(self, worker: int = 0) -> Objective:
        """Load everything; called once in each worker, which are numbered from 0."""


def open_checked(opener: Opener, fingerprint: str, worker: int = 0) -> Objective:
    """Open an objective; raise InvalidArtifactError ("inputs_changed") unless it has this fingerprint."""
    objective = opener.open(worker)
    if objective.fingerprint != fingerprint:
        raise InvalidArtifactError(
            "a worker has another checkpoint or other images than this search; repeat the search",
            code="inputs_changed",
        )
    return objective


def _start_evaluating(number: int, opener: PickleWithPlugins, fingerprint: str) -> Callable[[Arch], float]:
    """Return a worker's answer to an architecture (`WorkerPool`)."""
    objective = open_checked(opener.value(), fingerprint, number)
    return lambda arch: float(objective.accuracy(arch))


class ProcessPool(Closeable):
    """A `StreamingEvaluator` of several processes, which start with the first architecture.

    All evaluations happen in workers, even if there is only one, so that their number cannot change an accuracy.
    """

    def __init__(self, opener: Opener, fingerprint: str, workers: int):
        """Prepare the pool; every worker must find the objective with this fingerprint."""
        self.fingerprint = fingerprint
        preload = (type(opener).__module__, *({"torch"} & sys.modules.keys()))
        arguments = (PickleWithPlugins.of(opener), fingerprint)
        self._pool: WorkerPool[Arch, float] = WorkerPool(_start_evaluating, arguments, workers, preload)

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Yield accuracies as they arrive.

        Raises:
            WorkerCrashError: a worker died; the accuracies of the other workers are yielded before.
            BlocktimeError: what the evaluation raised.
        """
        for arch, accuracy in self._pool.stream(archs):
            assert isinstance(accuracy, float)
            yield arch, accuracy

    def close(self) -> None:
        """End all workers."""
        self._pool.close()


MAX_REASON = 200
"""Characters of Ray's description of a loss, whose last line names the cause."""


class RayPool(Closeable):
    """A `StreamingEvaluator` of Ray actors; checkpoint and images have the same paths on every node.

    Joins the cluster of $RAY_ADDRESS (`ray job submit` and `ray start` set it), else starts one on this machine for
    as long as the pool is open.
    """

    def __init__(self, opener: Opener, fingerprint: str, workers: int):
        """Connect.

        Raises:
            UsageError: Ray is not installed.
            BlocktimeError: the cluster does not answer.
        """
        self._cluster = open_cluster("--cluster")
        self._ray = ray = self._cluster.ray
        self.fingerprint = fingerprint
        remote = ray.remote(num_cpus=1)(_Worker)
        carried = PickleWithPlugins.of(opener, ray.cloudpickle.dumps)
        self._actors: list[Any] = [remote.remote(carried, fingerprint) for _ in range(workers)]

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Yield accuracies as they arrive.

        Raises:
            BlocktimeError: a worker or its node died ("worker_crashed"), or what the evaluation raised; the
                accuracies of the others are yielded before.
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
            return as_blocktime_error(error.cause)
        except self._ray.exceptions.RayError as error:
            last = [type(error).__name__, *str(error).split("\n")][-1].strip()[:MAX_REASON]
            return BlocktimeError(
                f"a Ray worker was lost ({last}); results so far are cached, run the same command to resume",
                code="worker_crashed",
            )

    def close(self) -> None:
        """End the actors, and the cluster if this pool started it."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._cluster.close()


class _Worker:
    """One Ray actor; it opens its objective at the first call, so that a failure to open is an answer."""

    def __init__(self, opener: PickleWithPlugins, fingerprint: str):
        self._opener, self._fingerprint = opener, fingerprint
        self._objective: Objective | None = None

    def accuracy(self, arch: Arch) -> float:
        """Return the accuracy of an architecture."""
        if self._objective is None:
            self._objective = open_checked(self._opener.value(), self._fingerprint)
        return self._objective.accuracy(arch)
