"""The journal of one measurement, read as what has been done and what is left."""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import Segment, segments_of
from luts.format.errors import InvalidArtifactError
from luts.format.files import AppendFile, read_lines
from luts.format.lut import normalise_samples
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import throttle_reason
from orchestrator.journal.records import (
    BatchRecord,
    ChoiceRecord,
    DecisionRecord,
    EndRecord,
    FailureRecord,
    Header,
    Identity,
    MeasurementRejectedError,
    PlacedType,
    PlacementRecord,
    Record,
    RoundsRecord,
    parse_record,
    timed_visits,
)
from orchestrator.wire.messages import DeviceState


class Journal:
    """An open journal with this process as its only writer; `records` holds what is written.

    Each line is `CRC JSON`: the CRC-32 of the JSON text in 8 hexadecimal digits.
    """

    def __init__(self, path: Path) -> None:
        """Open or create a journal and read it.

        Raises:
            InvalidArtifactError: The file is damaged in its middle, or too large.
            BlocktimeError: Another process writes it.
            StorageError: It cannot be created.
        """
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._file = AppendFile(
            path,
            partial(_take_in, self.records),
            writers="another `bench`",
            remedy=_REMEDY,
            elsewhere="give another folder for the run",
            again="run the same command again; it resumes after what is measured",
        )

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and wait until it is on the disk; on failure the file ends as it did before."""
        self._file.append(_encode(record))
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the open journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the file."""
        self.close()


_REMEDY = "restore the file, or start over with --fresh or another run folder"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return all whole records of a journal.

    Raises:
        InvalidArtifactError: The file is unreadable, too large, or damaged before its last line.
    """
    records: list[dict[str, Any]] = []
    read_lines(path, partial(_take_in, records), _REMEDY)
    return records


def _take_in(records: list[dict[str, Any]], line: bytes) -> bool:
    record = _decode(line)
    if record is None:
        return False
    records.append(record)
    return True


def _encode(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    body = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(body):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None


def samples_table(records: Iterable[Record]) -> pa.Table:
    """Every timed visit (settle runs left out) under `SAMPLES_SCHEMA`.

    A batch without an end counts as kept: it may still be going on.

    Raises:
        InvalidArtifactError: a chunk belongs to no batch, or there is not a single sample.
    """
    return JournalSamples(records).table()


@dataclass
class _Segment:
    """Chunks of one segment, and what they were last read as: samples and their session."""

    parts: list[pa.Table] = field(default_factory=list)
    waiting: list[tuple[BatchRecord | None, RoundsRecord]] = field(default_factory=list)
    samples: pa.Table | None = None
    session: Segment | None = None


def unit_digest(serial: str) -> str:
    """What a LUT calls a unit: LUTs are shared, serials are their owners'."""
    return hashlib.sha256(serial.encode()).hexdigest()[:12]


class JournalSamples:
    """The samples of a growing journal and what is estimated from them; nothing is read or computed twice."""

    def __init__(self, records: Iterable[Record] = ()):
        self._opened: dict[tuple[int, int], BatchRecord] = {}
        self._segments: dict[tuple[int, int], _Segment] = {}
        self._rejected: set[int] = set()
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in the next record."""
        if isinstance(record, BatchRecord):
            self._opened[record.batch, record.segment] = record
        elif isinstance(record, EndRecord) and not record.kept:
            self._rejected.add(record.batch)
        elif isinstance(record, RoundsRecord) and not record.rejected:
            place = record.batch, record.segment
            segment = self._segments.setdefault(place, _Segment())
            segment.waiting.append((self._opened.get(place), record))
            segment.samples = segment.session = None

    def table(self) -> pa.Table:
        """All samples so far, normalised."""
        return normalise_samples(pa.concat_tables([samples for _, samples in self._read_all()]))

    def estimation(self, reference_id: str, batches: Collection[int] | None = None) -> LatencyEstimates:
        """Of all samples so far, or of those of some batches.

        Raises:
            InvalidArtifactError: a chunk belongs to no batch, or there is not a single sample.
        """
        read = self._read_all(batches)
        return LatencyEstimates(
            reference_id,
            [session for session, _ in read],
            [samples for _, samples in read],
            {place: unit_digest(record.unit) for place, record in self._opened.items() if record.unit},
        )

    def _read_all(self, batches: Collection[int] | None = None) -> list[tuple[Segment, pa.Table]]:
        if not self._segments:
            raise InvalidArtifactError("the journal holds no samples yet; run the measurement first")
        places = sorted(place for place in self._segments if batches is None or place[0] in batches)
        return [self._read(place) for place in places]

    def _read(self, place: tuple[int, int]) -> tuple[Segment, pa.Table]:
        segment, kept = self._segments[place], place[0] not in self._rejected
        if segment.samples is None or segment.session is None:
            segment.parts += [_part(batch, chunk) for batch, chunk in segment.waiting]
            segment.waiting.clear()
            segment.samples = _with_verdict(pa.concat_tables(segment.parts), kept)
            (segment.session,) = segments_of(segment.samples)
        elif segment.session.kept != kept:
            segment.samples = _with_verdict(segment.samples.drop_columns(["kept"]), kept)
            segment.session = replace(segment.session, kept=kept)
        return segment.session, segment.samples


def _with_verdict(samples: pa.Table, kept: bool) -> pa.Table:
    verdict = pa.array(np.full(samples.num_rows, kept))
    return normalise_samples(samples.append_column("kept", verdict))


def _part(batch: BatchRecord | None, chunk: RoundsRecord) -> pa.Table:
    """A chunk's samples, without `kept`."""
    if batch is None:
        raise InvalidArtifactError(f"journal: samples of batch {chunk.batch}, which was never opened")
    timed = timed_visits(chunk.order[0], chunk.settle_runs)
    slots = np.asarray(chunk.order, dtype=np.int64)[:, timed]
    if slots.max(initial=0) >= len(batch.slots):
        raise InvalidArtifactError(f"journal: batch {batch.batch} visits a model that it did not load")
    rounds, positions = np.indices(slots.shape)
    return pa.table(
        {
            "batch": np.full(slots.size, batch.batch),
            "segment": np.full(slots.size, batch.segment),
            "round": chunk.first_round + rounds.ravel(),
            "position": positions.ravel(),
            "model": np.asarray(batch.slots, dtype=object)[slots.ravel()],
            "copy": np.asarray(batch.copies)[slots.ravel()],
            "ns": chunk.nanoseconds()[:, timed].ravel(),
        }
    )


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
        self._chunks: dict[int, list[RoundsRecord]] = {}
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
        if isinstance(record, RoundsRecord) and record.rejected:
            self._rejected_chunks[record.batch] = self.rejected_chunks(record.batch) + 1
        elif isinstance(record, RoundsRecord):
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

    def estimation(self, batches: Collection[int] | None = None) -> LatencyEstimates:
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

    def self_test_decision(self) -> DecisionRecord | None:
        """What the self-test decided; None before it."""
        return self_test_decision(self.records)

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


def self_test_decision(records: Iterable[Record]) -> DecisionRecord | None:
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
    records = [parse_record(document) for document in read_records(path)]
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
