"""The journal of one measurement, read as what has been done and what is left."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from luts.estimate.estimation import Estimation
from luts.format.errors import InvalidArtifactError
from orchestrator.export.artifacts.variant import Variant
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.journal import Journal, read_records
from orchestrator.journal.records import (
    BatchRecord,
    ChoiceRecord,
    ChunkRecord,
    DecisionRecord,
    EndRecord,
    FailureRecord,
    Header,
    Identity,
    PlacedType,
    PlacementRecord,
    Record,
    parse_record,
)
from orchestrator.journal.samples import JournalSamples
from orchestrator.journal.throttle import throttle_reason
from orchestrator.wire.device_state import DeviceState


class MeasurementLog:
    """A journal whose first record is the header; every append reaches the disk before anything else happens.

    Several threads may use it. `unit` is the serial of the fleet's unit that writes, empty for a device alone.
    """

    unit = ""

    def __init__(self, path: Path, header: Header):
        """Open or begin the journal.

        Raises:
            MeasurementRejectedError: it was begun with another device, runtime, agent, plan or model.
        """
        self._journal = Journal(path)
        self.records: list[Record] = []
        self._samples = JournalSamples()
        self._chunks: dict[int, list[ChunkRecord]] = {}
        self._rejected_chunks: dict[int, int] = {}
        self._lock = threading.RLock()
        try:
            for document in self._journal.records:
                self._take_in(parse_record(document))
            if not self.records:
                self.append(header)
            self.header = _header_of(path, self.records)
            _require_same(path, self.header.identity, header.identity)
        except BaseException:
            self._journal.close()
            raise

    def append(self, record: Record) -> None:
        """Write a record."""
        with self._lock:
            self._journal.append(record.model_dump())
            self._take_in(record)

    def _take_in(self, record: Record) -> None:
        self.records.append(record)
        self._samples.add(record)
        if isinstance(record, ChunkRecord) and record.rejected:
            self._rejected_chunks[record.batch] = self.rejected_chunks(record.batch) + 1
        elif isinstance(record, ChunkRecord):
            self._chunks.setdefault(record.batch, []).append(record)

    def close(self) -> None:
        """Release the file."""
        self._journal.close()

    def __enter__(self) -> MeasurementLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def estimation(self, batches: Collection[int] | None = None) -> Estimation:
        """What the samples so far say, of all batches or of some."""
        with self._lock:
            return self._samples.estimation(self.header.reference_id, batches)

    def ends(self) -> dict[int, EndRecord]:
        """Verdicts by batch."""
        return {record.batch: record for record in self.records if isinstance(record, EndRecord)}

    def batches(self) -> dict[int, BatchRecord]:
        """The latest segment of every batch."""
        return {record.batch: record for record in self.records if isinstance(record, BatchRecord)}

    def closed_batches(self) -> set[int]:
        """Batches with a verdict and with samples."""
        with self._lock:
            return self.ends().keys() & self._chunks.keys()

    def next_batch(self) -> int:
        """The number of the next new batch."""
        return max(self.batches(), default=-1) + 1

    def open_batch(self) -> BatchRecord | None:
        """A batch that was begun and has no verdict, as its next segment."""
        ends = self.ends()
        for number, batch in self.batches().items():
            if number not in ends:
                return batch.model_copy(update={"segment": batch.segment + 1})
        return None

    def decision(self) -> DecisionRecord | None:
        """What the self-test decided; None before it."""
        return decision(self.records)

    def choices(self) -> list[ChoiceRecord]:
        """Networks that were chosen while measuring, in order."""
        return [record for record in self.records if isinstance(record, ChoiceRecord)]

    def failures(self) -> dict[str, str]:
        """Models that can't be measured on this device, with the reason."""
        return {record.model: record.reason for record in self.records if isinstance(record, FailureRecord)}

    def placements(self) -> dict[str, list[PlacedType]]:
        """Operations with their compute units, of the models whose runtime tells."""
        return placements(self.records)

    def rounds(self, batch: int) -> int:
        """Rounds of a batch that are in the journal."""
        return max((c.first_round + len(c.order) for c in self._chunks.get(batch, ())), default=0)

    def rejected_chunks(self, batch: int) -> int:
        """How many chunks of a batch do not count."""
        return self._rejected_chunks.get(batch, 0)

    def longest_segment(self, batch: int) -> int:
        """Rounds of the batch's longest segment."""
        per_segment: dict[int, int] = {}
        for chunk in self._chunks.get(batch, ()):
            per_segment[chunk.segment] = per_segment.get(chunk.segment, 0) + len(chunk.order)
        return max(per_segment.values(), default=0)

    def throttled(self, batch: int) -> str:
        """Why a batch does not count, from the device's states around its chunks; "" where nothing is known."""
        cores = Variant.parse(self.header.identity.variant).cores
        for chunk in self._chunks.get(batch, ()):
            before, after = (DeviceState.model_validate(s) for s in (chunk.state_before, chunk.state_after))
            if reason := throttle_reason(before, after, cores):
                return reason
        return ""

    def too_long(self, batch: int) -> bool:
        """Whether the device throttled in a batch that it began cool, after the pause for one that throttled."""
        batches = self.batches()
        same = [
            number for number in batches if number < batch and batches[number].unit == batches[batch].unit
        ]
        if not (same and self.throttled(batch) and self.throttled(max(same))):
            return False
        first = DeviceState.model_validate(self._chunks[batch][0].state_before)
        return not throttle_reason(first, first)


def decision(records: Iterable[Record]) -> DecisionRecord | None:
    """What the self-test decided; None where there was none."""
    return next((record for record in records if isinstance(record, DecisionRecord)), None)


def policy_in_effect(header: Header, decided: DecisionRecord | None) -> dict[str, int | float | str]:
    """A journal's policy with what the self-test has decided of it."""
    changed = (
        {} if decided is None else decided.model_dump(include={"settle_runs", "batch_models", "keep_warm"})
    )
    reason = {} if decided is None else {"company": " ".join(decided.reason.split())[:256]}
    return {**header.identity.policy, **changed, **reason}


def placements(records: Iterable[Record]) -> dict[str, list[PlacedType]]:
    """Operations with their compute units by model."""
    return {record.model: record.operations for record in records if isinstance(record, PlacementRecord)}


def read_log(path: Path) -> list[Record]:
    """The records of a journal that nobody need be writing; the first one is the header."""
    documents, _ = read_records(path)
    records = [parse_record(document) for document in documents]
    _header_of(path, records)
    return records


def _header_of(path: Path, records: Sequence[Record]) -> Header:
    if records and isinstance(records[0], Header):
        return records[0]
    raise InvalidArtifactError(f"{path} does not begin with a header; it is not a journal of `bench`")


def _require_same(path: Path, began: Identity, now: Identity) -> None:
    changed = began.differences(now)
    if changed:
        raise MeasurementRejectedError(
            f"{path} was begun under other conditions: {'; '.join(changed)}; its samples are not mixed with new "
            "ones: finish it where it began, or begin anew with bench profile --fresh, elsewhere by moving it away"
        )
