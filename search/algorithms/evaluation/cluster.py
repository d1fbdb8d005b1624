"""Evaluation on a Ray cluster: one actor a worker, wherever Ray puts it. Needs the extra `cluster`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from luts.format.cluster import open_cluster
from luts.format.errors import BlocktimeError
from search.algorithms.evaluation.worker import Opener, WorkerError, open_checked, why_failed
from search.algorithms.interfaces.objective import Objective
from search.spaces import Arch
from search.spaces.plugins import Carried

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
        carried = Carried.of(opener, ray.cloudpickle.dumps)
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

    def __init__(self, opener: Carried, fingerprint: str):
        self._opener, self._fingerprint = opener, fingerprint
        self._objective: Objective | None = None

    def accuracy(self, arch: Arch) -> float:
        """Opened at the first call, so that a failure to open reads like one to evaluate."""
        if self._objective is None:
            self._objective = open_checked(self._opener.value(), self._fingerprint)
        return self._objective.accuracy(arch)
