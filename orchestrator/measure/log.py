"""The journal of one measurement, read as what has been done and what is left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from luts.errors import InvalidArtifactError, MeasurementRejectedError
from orchestrator.measure.journal import Journal, read_records
from orchestrator.measure.records import (
    BatchRecord,
    ChunkRecord,
    EndRecord,
    FailureRecord,
    Header,
    Identity,
    PlacedType,
    PlacementRecord,
    Record,
    parse_record,
)
from orchestrator.measure.samples import samples_table
from orchestrator.measure.throttle import throttle_reason
from orchestrator.wire.messages import DeviceState


class MeasurementLog:
    """A journal whose first record is the header; every append reaches the disk before anything else happens."""

    def __init__(self, path: Path, header: Header):
        """Open or begin the journal.

        Raises:
            MeasurementRejectedError: it was begun with another device, runtime, agent, plan or model.
        """
        self._journal = Journal(path)
        try:
            self.records = [parse_record(document) for document in self._journal.records]
            if not self.records:
                self._journal.append(header.model_dump())
                self.records.append(header)
            self.header = _checked_header(path, self.records[0], header.identity)
        except BaseException:
            self._journal.close()
            raise

    def append(self, record: Record) -> None:
        """Write a record."""
        self._journal.append(record.model_dump())
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        self._journal.close()

    def __enter__(self) -> MeasurementLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def samples(self, batches: set[int] | None = None) -> pa.Table:
        """The table of samples so far, of all batches or of some."""
        return samples_table(self.records, batches)

    def ends(self) -> dict[int, EndRecord]:
        """Verdicts by batch."""
        return {record.batch: record for record in self.records if isinstance(record, EndRecord)}

    def batches(self) -> dict[int, BatchRecord]:
        """The latest segment of every batch."""
        return {record.batch: record for record in self.records if isinstance(record, BatchRecord)}

    def closed_batches(self) -> set[int]:
        """Batches with a verdict and with samples."""
        measured = {record.batch for record in self.records if isinstance(record, ChunkRecord)}
        return set(self.ends()) & measured

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

    def failures(self) -> dict[str, str]:
        """Models that can't be measured on this device, with the reason."""
        return {record.model: record.reason for record in self.records if isinstance(record, FailureRecord)}

    def placements(self) -> dict[str, list[PlacedType]]:
        """Operations with their compute units, of the models whose runtime tells."""
        return placements(self.records)

    def rounds(self, batch: int) -> int:
        """Rounds of a batch that are in the journal."""
        return max((c.first_round + len(c.order) for c in self._chunks(batch)), default=0)

    def longest_segment(self, batch: int) -> int:
        """Rounds of the batch's longest segment."""
        per_segment: dict[int, int] = {}
        for chunk in self._chunks(batch):
            per_segment[chunk.segment] = per_segment.get(chunk.segment, 0) + len(chunk.order)
        return max(per_segment.values(), default=0)

    def throttled(self, batch: int) -> str:
        """Why a batch does not count, from the device's states around its chunks; "" where nothing is known."""
        for chunk in self._chunks(batch):
            before, after = (DeviceState.model_validate(s) for s in (chunk.state_before, chunk.state_after))
            if reason := throttle_reason(before, after):
                return reason
        return ""

    def _chunks(self, batch: int) -> list[ChunkRecord]:
        return [r for r in self.records if isinstance(r, ChunkRecord) and r.batch == batch]


def placements(records: Iterable[Record]) -> dict[str, list[PlacedType]]:
    """Operations with their compute units by model."""
    return {record.model: record.operations for record in records if isinstance(record, PlacementRecord)}


def read_log(path: Path) -> list[Record]:
    """The records of a journal that nobody need be writing; the first one is the header."""
    documents, _ = read_records(path)
    records = [parse_record(document) for document in documents]
    if not records or not isinstance(records[0], Header):
        raise InvalidArtifactError(f"{path} does not begin with a header; it is no journal of `bench`")
    return records


def _checked_header(path: Path, first: Record, identity: Identity) -> Header:
    if not isinstance(first, Header):
        raise InvalidArtifactError(f"{path} does not begin with a header; it is no journal of `bench`")
    changed = first.identity.differences(identity)
    if changed:
        raise MeasurementRejectedError(
            f"{path} was begun under other conditions: {'; '.join(changed)}; its samples are not mixed with new "
            "ones: finish it where it began, or begin anew with --fresh"
        )
    return first
