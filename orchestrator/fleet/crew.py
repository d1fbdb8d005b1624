"""The units of one class at work: each in a thread of its own, one lease after the other."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType

from luts.format.errors import BlocktimeError
from orchestrator.devices.lock import BusyError
from orchestrator.export.artifacts.variant import Variant
from orchestrator.fleet.leases import Lease, LeaseEnded, Leases
from orchestrator.fleet.unit import OpenUnit, UnfitUnit, Unit
from orchestrator.fleet.unit_log import UnitLog
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.log import MeasurementLog
from orchestrator.measure.engine import Job
from orchestrator.measure.link import Link
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.replies import HelloReply

POLL_S = 1.0
"""Between two looks for leases that have run out."""

JOIN_S = 30.0
"""For which a closing crew waits for a unit's thread; its device is closed by then, so all calls have ended."""


@dataclass(frozen=True)
class Limits:
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
"""Told who answers: a unit's serial, its agent's hello, whether clocks are fixed. UnfitUnit where it may not."""


class Crew:
    """Does an engine's jobs on the units of a class; what a lost unit was at goes on on another one.

    A unit that is lost, hangs or is busy costs time, not the run: that ends only where no unit is left for long, or
    a job can't be done by any.
    """

    def __init__(
        self,
        name: str,
        openers: Sequence[OpenUnit],
        limits: Limits,
        tell: Callable[[str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self.name, self.limits, self._openers, self._tell = name, limits, openers, tell
        self._leases: Leases[Job] = Leases(limits.lease_s, clock_s)
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

    def share(self, jobs: Sequence[Job]) -> None:
        """Have all jobs done.

        Raises:
            DeviceError: no unit has been there for `deserted_s`.
            BlocktimeError: as a job raised it, on one unit after the other where a unit may be at fault.
            LeaseEnded: the crew was closed meanwhile.
        """
        self._leases.put(jobs)
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

    def __enter__(self) -> Crew:
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
            except UnfitUnit as unfit:
                self._out(number, str(unfit))
                return
            except LeaseEnded:
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
        link: Link | None = None
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
                        lease.job.do(link, log)
                    self._leases.done(lease)
                except BusyError:
                    self._leases.give_back(lease)
                    self._leases.pause(self.limits.busy_s)
                except UnfitUnit:
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

    def _connected(self, unit: Unit) -> Link:
        link = Link(unit.device, self._variant.runtime, self._variant.load_options)
        self._check(unit.serial, link.hello(), unit.device.fixed_performance)
        return link

    def _take_away(self, lease: Lease[Job]) -> None:
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
