"""Units of one class at work: each in a thread of its own, one lease after the other."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Self

from luts.format.errors import BlocktimeError
from luts.format.files import Closeable
from orchestrator.devices.lock import DeviceBusyError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.fleet.units import FleetUnit, OpenUnit, UnfitUnitError
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, InterferenceRecord, MeasurementRejectedError, Record
from orchestrator.measure.engine import BatchTask
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.messages import HelloReply

MAX_LOSSES = 6
"""Leases of one task in a row that may end without a new sample: with more, the units are not the cause."""


class LeaseEndedError(Exception):
    """The writer's lease has ended: it took too long, or the run has ended."""


@dataclass
class _Waiting:
    task: BatchTask
    losses: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Lease:
    """A task that a unit runs, until `until_s` of the clock."""

    number: int
    unit: str
    until_s: float
    waiting: _Waiting = field(repr=False)

    @property
    def task(self) -> BatchTask:
        """The task."""
        return self.waiting.task


class Leases:
    """Waiting tasks, and leases of those that units run; all methods may be called by several threads.

    A task whose lease is returned or expires goes to the front of the queue. `lock` guards everything,
    including what must not happen after a lease has ended.
    """

    def __init__(self, limit_s: float, clock_s: Callable[[], float] = time.monotonic):
        """Grant leases of `limit_s` seconds of the clock."""
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._limit_s, self._clock_s = limit_s, clock_s
        self._waiting: deque[_Waiting] = deque()
        self._leased: dict[int, Lease] = {}
        self._numbers = itertools.count(1)
        self._error: BlocktimeError | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no further task will come."""
        return self._closed

    def put(self, tasks: Iterable[BatchTask]) -> None:
        """Add tasks at the end of the queue."""
        with self._changed:
            self._waiting.extend(_Waiting(task) for task in tasks)
            self._changed.notify_all()

    def take(self, unit: str, wait_s: float | None = None) -> Lease | None:
        """Wait for the next task for an idle unit; None if there is none within `wait_s`, or ever again."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting, wait_s)
            if self._closed or not self._waiting:
                return None
            until_s = self._clock_s() + self._limit_s
            lease = Lease(next(self._numbers), unit, until_s, self._waiting.popleft())
            self._leased[lease.number] = lease
            return lease

    def holds(self, lease: Lease) -> bool:
        """Return whether the unit still has the task."""
        return lease.number in self._leased

    def done(self, lease: Lease) -> None:
        """Complete a task; raises LeaseEndedError if another unit has it by now."""
        with self._changed:
            self._end(lease)

    def writes(self, lease: Lease) -> bool:
        """Note that the unit writes results; return whether it still has the task."""
        lease.waiting.progress = True
        return self.holds(lease)

    def give_back(self, lease: Lease, why: BlocktimeError | None = None) -> None:
        """Return an unfinished task to the queue; nothing happens if the lease has expired before.

        Args:
            lease: The lease.
            why: The unit's failure. The run ends with it if the task was returned too often without any
                progress.
        """
        with self._changed:
            if not self.holds(lease):
                return
            self._end(lease)
            self._requeue(lease.waiting, why)

    def expire(self) -> list[Lease]:
        """Revoke and return the leases that have run out."""
        with self._changed:
            late = [lease for lease in self._leased.values() if lease.until_s < self._clock_s()]
            for lease in late:
                self._end(lease)
                minutes = f"{self._limit_s / 60:.0f} min"
                why = BlocktimeError(
                    f"{lease.unit} did not finish a batch within {minutes}; use a longer --lease",
                    code="lease_expired",
                )
                self._requeue(lease.waiting, why)
            return late

    def wait(self, wait_s: float) -> bool:
        """Wait until all tasks are done, at most so long; return whether they are.

        Raises:
            BlocktimeError: A task can't be done.
            LeaseEndedError: The run was closed.
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
        """End the run with an error: no unit can do what is left."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def close(self) -> None:
        """End all leases; no unit gets another one."""
        with self._changed:
            self._closed = True
            self._leased.clear()
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, unless the run is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _end(self, lease: Lease) -> None:
        if self._leased.pop(lease.number, None) is None:
            raise LeaseEndedError
        self._changed.notify_all()

    def _requeue(self, waiting: _Waiting, why: BlocktimeError | None) -> None:
        waiting.losses = 0 if waiting.progress else waiting.losses + (why is not None)
        waiting.progress = False
        self._waiting.appendleft(waiting)
        if waiting.losses >= MAX_LOSSES and why is not None:
            self.fail(why)
        self._changed.notify_all()


class UnitLog(MeasurementLog):
    """The fleet's log for one unit: everything that is written carries the unit's serial.

    A batch that another unit left open continues here in another segment, if it contains models of this task.
    """

    def __init__(self, shared: MeasurementLog, leases: Leases, lease: Lease, in_progress: dict[int, str]):
        """Share the fleet's log for a lease; `in_progress` are the units by batch, of all batches that are run."""
        vars(self).update(vars(shared))
        self.unit = lease.unit
        self._leases, self._lease, self._in_progress = leases, lease, in_progress

    def append(self, record: Record) -> None:
        """Write a record; raises LeaseEndedError if another unit may have the task by now."""
        if isinstance(record, BatchRecord | InterferenceRecord):
            record = record.model_copy(update={"unit": self.unit})
        with self._leases.lock:
            if not self._leases.writes(self._lease):
                raise LeaseEndedError
            super().append(record)

    def open_batch(self) -> BatchRecord | None:
        """Return an open batch with models of this task that no other unit runs."""
        models = set(self._lease.task.models)
        with self._lock:
            ends = self.ends()
            for number, batch in self.batches().items():
                free = self._in_progress.get(number, self.unit) == self.unit
                if number not in ends and free and models & set(batch.slots):
                    self._in_progress[number] = self.unit
                    return batch.model_copy(update={"segment": batch.segment + 1})
            return None

    def next_batch(self) -> int:
        """Return a batch number that no other unit gets."""
        with self._lock:
            number = max((super().next_batch() - 1, *self._in_progress), default=-1) + 1
            self._in_progress[number] = self.unit
            return number

    def close(self) -> None:
        """Release this unit's batches; the journal stays open."""
        self.release(self.unit, self._in_progress, self._lock)

    @staticmethod
    def release(unit: str, in_progress: dict[int, str], lock: AbstractContextManager[object]) -> None:
        """Release a unit's batches, so that others can continue them."""
        with lock:
            for number in [number for number, holder in in_progress.items() if holder == unit]:
                del in_progress[number]


POLL_S = 1.0
"""Seconds between two checks for expired leases."""

JOIN_S = 30.0
"""Longest wait for a unit's thread at the end; its device is closed by then, so that all calls have ended."""


@dataclass(frozen=True)
class FleetLimits:
    """Time limits of a fleet, in seconds.

    Attributes:
        lease_s: For one batch; then another unit continues it.
        no_units_s: Without any unit of a class, before the run ends.
        rest_s: From the loss of a unit to the next attempt to reach it.
        busy_s: Between two checks whether another program still uses a unit.
    """

    lease_s: float = 900.0
    no_units_s: float = 600.0
    rest_s: float = 10.0
    busy_s: float = 1.0


Check = Callable[[str, HelloReply, bool], None]
"""Called with a unit's serial, its agent's hello, and whether clocks are fixed; raises UnfitUnitError."""


class FleetExecutor(Closeable):
    """Runs an engine's tasks on the units of a class; another unit continues the task of a lost one.

    A unit that is lost, hangs or is busy costs time, not the run: that ends only if no unit is left for long,
    or no unit can do a task.
    """

    def __init__(
        self,
        name: str,
        openers: Sequence[OpenUnit],
        limits: FleetLimits,
        notify: Callable[[str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ):
        """Prepare one thread for each opener; `notify` is called with messages about units of the class `name`."""
        self.name, self.limits, self._openers, self._notify = name, limits, openers, notify
        self._leases: Leases = Leases(limits.lease_s, clock_s)
        self._units: dict[int, FleetUnit] = {}
        self._reasons: dict[int, str] = {}
        self._changed = threading.Condition()
        self._empty_since_s: float | None = None
        self._in_progress: dict[int, str] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"{name} {number}", daemon=True)
            for number in range(1, len(openers) + 1)
        ]

    def open(self) -> list[FleetUnit]:
        """Return the units that can be reached now; the others are tried repeatedly.

        Raises:
            DeviceError: None can; the first reason.
        """
        with self._changed:
            while len(self._units.keys() | self._reasons.keys()) < len(self._openers):
                self._changed.wait(POLL_S)
            if not self._units:
                reason = next(iter(self._reasons.values()), "none was asked for")
                raise DeviceError(f"no unit of {self.name}: {reason}", code="no_units")
            return list(self._units.values())

    def prepare(self, log: MeasurementLog, variant: Variant, check: Check) -> None:
        """Set log, variant and check of the tasks to come."""
        self._log, self._variant, self._check = log, variant, check

    def run_all(self, tasks: Sequence[BatchTask]) -> None:
        """Run all tasks.

        Raises:
            DeviceError: There was no unit for `no_units_s`.
            BlocktimeError: A task raised it, on one unit after the other if a unit may be the cause.
            LeaseEndedError: The executor was closed meanwhile.
        """
        self._leases.put(tasks)
        while not self._leases.wait(POLL_S):
            for lease in self._leases.expire():
                self._revoke(lease)
            self._require_units()

    def close(self) -> None:
        """End all leases and close all units."""
        self._leases.close()
        with self._changed:
            units = list(self._units.values())
        for unit in units:
            unit.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)

    def __enter__(self) -> Self:
        """Start to open the units."""
        for thread in self._threads:
            thread.start()
        return self

    def _serve(self, number: int) -> None:
        """Run a unit's thread: open the device, work, and open it again after a loss."""
        while not self._leases.closed:
            unit: FleetUnit | None = None
            try:
                unit = self._open_unit(number)
                self._work(unit)
            except UnfitUnitError as unfit:
                self._report_out(number, str(unfit))
                return
            except LeaseEndedError:
                self._report_out(number, "it took too long")
            except BlocktimeError as why:
                self._report_out(number, str(why))
            except Exception as error:
                self._leases.fail(
                    BlocktimeError(
                        f"{self.name}: {type(error).__name__}: {error}; report it", code="unexpected_error"
                    )
                )
            finally:
                with self._changed:
                    self._units.pop(number, None)
                if unit is not None:
                    unit.close()
            self._leases.pause(self.limits.rest_s)

    def _open_unit(self, number: int) -> FleetUnit:
        """Return a unit that no other thread has; of two that found the same one, the later opens another."""
        while True:
            unit = self._openers[number - 1](self._serials())
            with self._changed:
                if unit.serial not in self._serials():
                    self._units[number] = unit
                    if number in self._reasons:
                        self._notify(f"{self.name}: {unit.serial} is back")
                    self._changed.notify_all()
                    return unit
            unit.close()

    def _serials(self) -> Collection[str]:
        with self._changed:
            return {unit.serial for unit in self._units.values()}

    def _report_out(self, number: int, reason: str) -> None:
        if self._leases.closed:
            return
        with self._changed:
            unit = self._units.get(number)
            if self._reasons.get(number) != reason:
                self._notify(f"{self.name}: {unit.serial if unit else f'unit {number}'} is out: {reason}")
            self._reasons[number] = reason
            self._changed.notify_all()

    def _work(self, unit: FleetUnit) -> None:
        """Run one lease after the other; raises why the unit is out."""
        connection: DeviceConnection | None = None
        try:
            while (lease := self._leases.take(unit.serial)) is not None:
                log = UnitLog(self._log, self._leases, lease, self._in_progress)
                try:
                    with unit.held(), log:
                        connection = connection or self._connect(unit)
                        lease.task.run(connection, log)
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
            if connection is not None:
                with contextlib.suppress(BlocktimeError, OSError):
                    connection.drop()

    def _connect(self, unit: FleetUnit) -> DeviceConnection:
        connection = DeviceConnection(unit.device, self._variant.runtime, self._variant.load_options)
        self._check(unit.serial, connection.hello(), unit.device.fixed_performance)
        return connection

    def _revoke(self, lease: Lease) -> None:
        """Close a hung unit and requeue its batch."""
        self._notify(f"{self.name}: {lease.unit} hangs; another unit continues its batch")
        with self._changed:
            units = [unit for unit in self._units.values() if unit.serial == lease.unit]
        UnitLog.release(lease.unit, self._in_progress, self._leases.lock)
        for unit in units:
            unit.close()

    def _require_units(self) -> None:
        with self._changed:
            now_s = time.monotonic()
            may_come_back = any(thread.is_alive() for thread in self._threads)
            if self._units:
                self._empty_since_s = None
            elif self._empty_since_s is None:
                self._empty_since_s = now_s
            elif now_s - self._empty_since_s > self.limits.no_units_s or not may_come_back:
                reason = next(iter(self._reasons.values()), "none answers")
                raise DeviceError(
                    f"all units of {self.name} are out: {reason}; bring one back and run the same command again; "
                    "measurements so far are kept",
                    code="no_units",
                )
