"""The units of one class at work: each in a thread of its own, one lease after the other."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, TypeVar

from luts.format.errors import BlocktimeError
from orchestrator.devices.lock import DeviceBusyError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.fleet.units import OpenUnit, UnfitUnitError, Unit
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, InterferenceRecord, MeasurementRejectedError, Record
from orchestrator.measure.engine import BatchTask
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.messages import HelloReply

MAX_LOSSES = 6
"""Leases of one job in a row that may end without a single new sample: with so many it is not the units' fault."""

JobT = TypeVar("JobT")


class LeaseEndedError(Exception):
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
        """The job is done. Raises LeaseEndedError where it is another's by now."""
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
            LeaseEndedError: the run was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or self._closed or not (self._waiting or self._leased), wait_s
            )
            if self._error:
                raise self._error
            if self._closed:
                raise LeaseEndedError
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
            raise LeaseEndedError
        self._changed.notify_all()

    def _again(self, waiting: _Waiting[JobT], why: BlocktimeError | None) -> None:
        waiting.losses = 0 if waiting.progress else waiting.losses + (why is not None)
        waiting.progress = False
        self._waiting.appendleft(waiting)
        if waiting.losses >= MAX_LOSSES and why is not None:
            self.fail(why)
        self._changed.notify_all()


class UnitLog(MeasurementLog):
    """Shares everything with the fleet's log but its batches in hand; all that is written bears the unit's serial.

    A batch that another unit has left open goes on here, as a further segment, where it holds models of this job.
    """

    def __init__(
        self,
        shared: MeasurementLog,
        unit: str,
        models: Collection[str],
        in_hand: dict[int, str],
        lock: AbstractContextManager[object],
        writes: Callable[[], bool],
    ):
        """`in_hand`: batches that units of the fleet are at; `writes`, under `lock`: whether the lease
        still is."""
        vars(self).update(vars(shared))
        self.unit = unit
        self._models, self._in_hand, self._leases_lock, self._writes = set(models), in_hand, lock, writes

    def append(self, record: Record) -> None:
        """Write a record. Raises LeaseEndedError where another unit may have the job by now."""
        if isinstance(record, BatchRecord | InterferenceRecord):
            record = record.model_copy(update={"unit": self.unit})
        with self._leases_lock:
            if not self._writes():
                raise LeaseEndedError
            super().append(record)

    def open_batch(self) -> BatchRecord | None:
        """An open batch with models of this job, that no other unit is at."""
        with self._lock:
            ends = self.ends()
            for number, batch in self.batches().items():
                free = self._in_hand.get(number, self.unit) == self.unit
                if number not in ends and free and self._models & set(batch.slots):
                    self._in_hand[number] = self.unit
                    return batch.model_copy(update={"segment": batch.segment + 1})
            return None

    def next_batch(self) -> int:
        """A number that no other unit gets."""
        with self._lock:
            number = max((super().next_batch() - 1, *self._in_hand), default=-1) + 1
            self._in_hand[number] = self.unit
            return number

    def close(self) -> None:
        """What this unit was at is anybody's; the journal stays open."""
        self.release(self.unit, self._in_hand, self._lock)

    @staticmethod
    def release(unit: str, in_hand: dict[int, str], lock: AbstractContextManager[object]) -> None:
        """What a unit is at is anybody's."""
        with lock:
            for number in [number for number, holder in in_hand.items() if holder == unit]:
                del in_hand[number]


POLL_S = 1.0
"""Between two looks for leases that have run out."""

JOIN_S = 30.0
"""For which a closing crew waits for a unit's thread; its device is closed by then, so all calls have ended."""


@dataclass(frozen=True)
class FleetLimits:
    """Patience of a crew, in seconds.

    Attributes:
        lease_s: For which a unit may be at a batch; then another unit goes on with it.
        deserted_s: For which a class may be without any unit before the run ends.
        rest_s: From the loss of a unit to the next try to reach it.
        busy_s: Between two looks whether another program still measures on a unit.
    """

    lease_s: float = 900.0
    deserted_s: float = 600.0
    rest_s: float = 10.0
    busy_s: float = 1.0


Check = Callable[[str, HelloReply, bool], None]
"""Called with a unit's serial, its agent's hello, and whether clocks are fixed; raises UnfitUnitError."""


class FleetExecutor:
    """Does an engine's jobs on the units of a class; what a lost unit was at goes on on another one.

    A unit that is lost, hangs or is busy costs time, not the run: that ends only where no unit is left for long, or
    a job can't be done by any.
    """

    def __init__(
        self,
        name: str,
        openers: Sequence[OpenUnit],
        limits: FleetLimits,
        tell: Callable[[str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self.name, self.limits, self._openers, self._tell = name, limits, openers, tell
        self._leases: Leases[BatchTask] = Leases(limits.lease_s, clock_s)
        self._units: dict[int, Unit] = {}
        self._told: dict[int, str] = {}
        self._changed = threading.Condition()
        self._deserted_since_s: float | None = None
        self._in_hand: dict[int, str] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"{name} {number}", daemon=True)
            for number in range(1, len(openers) + 1)
        ]

    def open(self) -> list[Unit]:
        """Those of the units that can be reached now; the others are tried again and again.

        Raises:
            DeviceError: none can; the first reason.
        """
        with self._changed:
            while len(self._units.keys() | self._told.keys()) < len(self._openers):
                self._changed.wait(POLL_S)
            if not self._units:
                reason = next(iter(self._told.values()), "none was asked for")
                raise DeviceError(f"no unit of {self.name}: {reason}")
            return list(self._units.values())

    def work_on(self, log: MeasurementLog, variant: Variant, check: Check) -> None:
        """What jobs to come are done on; before the first of them."""
        self._log, self._variant, self._check = log, variant, check

    def run_all(self, tasks: Sequence[BatchTask]) -> None:
        """Have all jobs done.

        Raises:
            DeviceError: no unit has been there for `deserted_s`.
            BlocktimeError: as a job raised it, on one unit after the other where a unit may be at fault.
            LeaseEndedError: the crew was closed meanwhile.
        """
        self._leases.put(tasks)
        while not self._leases.wait(POLL_S):
            for lease in self._leases.expire():
                self._take_away(lease)
            self._require_units()

    def close(self) -> None:
        """End all leases and all units."""
        self._leases.close()
        with self._changed:
            units = list(self._units.values())
        for unit in units:
            unit.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)

    def __enter__(self) -> FleetExecutor:
        """Begins to open its units."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, number: int) -> None:
        """A unit's thread: the device is opened, works, and after a loss is opened again."""
        while not self._leases.closed:
            unit: Unit | None = None
            try:
                unit = self._opened(number)
                self._work(unit)
            except UnfitUnitError as unfit:
                self._out(number, str(unfit))
                return
            except LeaseEndedError:
                self._out(number, "it took too long")
            except BlocktimeError as why:
                self._out(number, str(why))
            except Exception as error:
                self._leases.fail(BlocktimeError(f"{self.name}: {type(error).__name__}: {error}; report it"))
            finally:
                with self._changed:
                    self._units.pop(number, None)
                if unit is not None:
                    unit.close()
            self._leases.pause(self.limits.rest_s)

    def _opened(self, number: int) -> Unit:
        """A unit that no other thread has: of two that found the same one, the later looks for another."""
        while True:
            unit = self._openers[number - 1](self._serials())
            with self._changed:
                if unit.serial not in self._serials():
                    self._units[number] = unit
                    if number in self._told:
                        self._tell(f"{self.name}: {unit.serial} is there again")
                    self._changed.notify_all()
                    return unit
            unit.close()

    def _serials(self) -> Collection[str]:
        with self._changed:
            return {unit.serial for unit in self._units.values()}

    def _out(self, number: int, reason: str) -> None:
        if self._leases.closed:
            return
        with self._changed:
            unit = self._units.get(number)
            if self._told.get(number) != reason:
                self._tell(f"{self.name}: {unit.serial if unit else f'unit {number}'} is out: {reason}")
            self._told[number] = reason
            self._changed.notify_all()

    def _work(self, unit: Unit) -> None:
        """One lease after the other; raises what the unit is out for."""
        link: DeviceConnection | None = None
        try:
            while (lease := self._leases.take(unit.serial)) is not None:
                log = UnitLog(
                    self._log,
                    unit.serial,
                    lease.job.models,
                    self._in_hand,
                    self._leases.lock,
                    lambda lease=lease: self._leases.writes(lease),  # type: ignore[misc]
                )
                try:
                    with unit.held(), log:
                        link = link or self._connected(unit)
                        lease.job.run(link, log)
                    self._leases.done(lease)
                except DeviceBusyError:
                    self._leases.give_back(lease)
                    self._leases.pause(self.limits.busy_s)
                except UnfitUnitError:
                    self._leases.give_back(lease)
                    raise
                except (DeviceError, AgentError, MeasurementRejectedError) as why:
                    self._leases.give_back(lease, why)
                    raise
                except BlocktimeError as error:
                    self._leases.fail(error)
                    raise
        finally:
            if link is not None:
                with contextlib.suppress(BlocktimeError, OSError):
                    link.drop()

    def _connected(self, unit: Unit) -> DeviceConnection:
        link = DeviceConnection(unit.device, self._variant.runtime, self._variant.load_options)
        self._check(unit.serial, link.hello(), unit.device.fixed_performance)
        return link

    def _take_away(self, lease: Lease[BatchTask]) -> None:
        """A unit that hangs is closed, so that what it is at ends; its batch is anybody's."""
        self._tell(f"{self.name}: {lease.unit} hangs; another unit goes on with its batch")
        with self._changed:
            units = [unit for unit in self._units.values() if unit.serial == lease.unit]
        UnitLog.release(lease.unit, self._in_hand, self._leases.lock)
        for unit in units:
            unit.close()

    @property
    def _anyone(self) -> bool:
        """Whether any unit may come back."""
        return any(thread.is_alive() for thread in self._threads)

    def _require_units(self) -> None:
        with self._changed:
            now_s = time.monotonic()
            if self._units:
                self._deserted_since_s = None
            elif self._deserted_since_s is None:
                self._deserted_since_s = now_s
            elif now_s - self._deserted_since_s > self.limits.deserted_s or not self._anyone:
                reason = next(iter(self._told.values()), "none answers")
                raise DeviceError(
                    f"all units of {self.name} are out: {reason}; bring one back and run the same command again, "
                    "what was measured is kept"
                )
