"""The journal of a fleet as one unit sees it for as long as it has a lease."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from orchestrator.fleet.leases import LeaseEnded
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, CompanyRecord, Record


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
        """Write a record. Raises LeaseEnded where another unit may have the job by now."""
        if isinstance(record, BatchRecord | CompanyRecord):
            record = record.model_copy(update={"unit": self.unit})
        with self._leases_lock:
            if not self._writes():
                raise LeaseEnded
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
