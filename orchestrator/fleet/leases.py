"""Which unit does which job, until when: jobs of one class of devices, leased to its units.

No device, no thread and no clock of its own: units ask for a lease, and give it back done or undone.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from luts.format.errors import BlocktimeError

MAX_LOSSES = 6
"""Leases of one job in a row that may end without a single new sample: with so many it is not the units' fault."""

JobT = TypeVar("JobT")


class LeaseEnded(Exception):
    """Whoever writes has no lease any more: it took too long, or the run has ended."""


@dataclass
class _Waiting(Generic[JobT]):
    job: JobT
    losses: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Lease(Generic[JobT]):
    """A job in the hands of a unit, until `until_s` of the clock."""

    number: int
    unit: str
    until_s: float
    waiting: _Waiting[JobT] = field(repr=False)

    @property
    def job(self) -> JobT:
        """What is to be done."""
        return self.waiting.job


class Leases(Generic[JobT]):
    """Jobs that wait, and leases of those that are being done. All methods may be called by several threads.

    A lease that is given back undone, or that has run out, puts its job in front of all that wait. `lock` guards
    everything, and whatever must not happen after a lease has ended.
    """

    def __init__(self, limit_s: float, clock_s: Callable[[], float] = time.monotonic):
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._limit_s, self._clock_s = limit_s, clock_s
        self._waiting: deque[_Waiting[JobT]] = deque()
        self._leased: dict[int, Lease[JobT]] = {}
        self._numbers = itertools.count(1)
        self._error: BlocktimeError | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no job will come any more."""
        return self._closed

    def put(self, jobs: Iterable[JobT]) -> None:
        """More jobs, at the end."""
        with self._changed:
            self._waiting.extend(_Waiting(job) for job in jobs)
            self._changed.notify_all()

    def take(self, unit: str, wait_s: float | None = None) -> Lease[JobT] | None:
        """The next job for an idle unit; waits for one. None where there is none within `wait_s`, or ever again."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting, wait_s)
            if self._closed or not self._waiting:
                return None
            return self._lease(unit)

    def _lease(self, unit: str) -> Lease[JobT]:
        lease = Lease(next(self._numbers), unit, self._clock_s() + self._limit_s, self._waiting.popleft())
        self._leased[lease.number] = lease
        return lease

    def holds(self, lease: Lease[JobT]) -> bool:
        """Whether the unit still has the job."""
        return lease.number in self._leased

    def done(self, lease: Lease[JobT]) -> None:
        """The job is done. Raises LeaseEnded where it is another's by now."""
        with self._changed:
            self._end(lease)

    def writes(self, lease: Lease[JobT]) -> bool:
        """Whether the unit still has the job, asked where that brings it forward."""
        lease.waiting.progress = True
        return self.holds(lease)

    def give_back(self, lease: Lease[JobT], why: BlocktimeError | None = None) -> None:
        """The job is not done, because of `why`; nothing happens where the lease has run out before.

        The run ends by `why` where the job has come back too often without any progress.
        """
        with self._changed:
            if not self.holds(lease):
                return
            self._end(lease)
            self._again(lease.waiting, why)

    def expire(self) -> list[Lease[JobT]]:
        """Takes the jobs away from units that have had them for too long."""
        with self._changed:
            late = [lease for lease in self._leased.values() if lease.until_s < self._clock_s()]
            for lease in late:
                self._end(lease)
                minutes = f"{self._limit_s / 60:.0f} min"
                why = BlocktimeError(
                    f"{lease.unit} did not end a batch within {minutes}; give a longer --lease"
                )
                self._again(lease.waiting, why)
            return late

    def wait(self, wait_s: float) -> bool:
        """Whether all jobs are done, within that time.

        Raises:
            BlocktimeError: one can't be.
            LeaseEnded: the run was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or self._closed or not (self._waiting or self._leased), wait_s
            )
            if self._error:
                raise self._error
            if self._closed:
                raise LeaseEnded
            return not (self._waiting or self._leased)

    def fail(self, error: BlocktimeError) -> None:
        """No unit can do what is left."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def close(self) -> None:
        """All leases end, and no unit gets another one."""
        with self._changed:
            self._closed = True
            self._leased.clear()
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Waits, but not for a closed run."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _end(self, lease: Lease[JobT]) -> None:
        if self._leased.pop(lease.number, None) is None:
            raise LeaseEnded
        self._changed.notify_all()

    def _again(self, waiting: _Waiting[JobT], why: BlocktimeError | None) -> None:
        waiting.losses = 0 if waiting.progress else waiting.losses + (why is not None)
        waiting.progress = False
        self._waiting.appendleft(waiting)
        if waiting.losses >= MAX_LOSSES and why is not None:
            self.fail(why)
        self._changed.notify_all()
