"""The journal of one measurement: its file, its samples, and what is done and what is left."""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import Segment, segments_of
from luts.format.errors import InvalidArtifactError
from luts.format.files import AppendFile, Closeable, read_lines
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
    TraceRecord,
    parse_record,
)


class Journal(Closeable):
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
            partial(_decode_line, self.records),
            remedy=_REMEDY,
            elsewhere="give another folder for the run",
            again="run the same command again; it resumes after what is measured",
        )

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and wait until it is on the disk; on failure the file ends as it did before."""
        body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        self._file.append(b"%08x %s\n" % (zlib.crc32(body), body))
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


_REMEDY = "restore the file, or start over with --fresh or another run folder"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return all whole records of a journal.

    Raises InvalidArtifactError: the file is unreadable, too large, or damaged before its last line.
    """
    records: list[dict[str, Any]] = []
    read_lines(path, partial(_decode_line, records), _REMEDY)
    return records


def _decode_line(records: list[dict[str, Any]], line: bytes) -> bool:
    body = line[9:-1]
    if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        return False
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if isinstance(record, dict):
        records.append(record)
    return isinstance(record, dict)


def samples_table(records: Iterable[Record]) -> pa.Table:
    """Return every sample of a journal under `SAMPLES_SCHEMA`.

    A batch without a verdict counts as kept: it may still be running.

    Raises InvalidArtifactError: samples belong to no batch, or there is not a single one.
    """
    return JournalSamples(records).table()


@dataclass
class _SegmentSamples:
    """Runs of one segment; `read` is what was read from them, None since the last one was added."""

    runs: list[tuple[BatchRecord | None, RoundsRecord]] = field(default_factory=list)
    read: tuple[Segment, pa.Table] | None = None


def unit_digest(serial: str) -> str:
    """Return the name of a unit in a LUT: LUTs are shared, serial numbers are private."""
    return hashlib.sha256(serial.encode()).hexdigest()[:12]


class JournalSamples:
    """The samples of a growing journal and the estimates from them; nothing is computed twice."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        """Read records; `add` takes further ones."""
        self._batches: dict[tuple[int, int], BatchRecord] = {}
        self._segments: dict[tuple[int, int], _SegmentSamples] = {}
        self._rejected: set[int] = set()
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add the next record."""
        if isinstance(record, BatchRecord):
            self._batches[record.batch, record.segment] = record
        elif isinstance(record, EndRecord) and not record.kept:
            self._rejected.add(record.batch)
        elif isinstance(record, RoundsRecord) and not record.rejected:
            key = record.batch, record.segment
            segment = self._segments.setdefault(key, _SegmentSamples())
            segment.runs.append((self._batches.get(key), record))
            segment.read = None

    def table(self) -> pa.Table:
        """Return all samples so far under `SAMPLES_SCHEMA`."""
        return normalise_samples(pa.concat_tables([samples for _, samples in self._read_all()]))

    def estimation(self, reference_id: str, batches: Collection[int] | None = None) -> LatencyEstimates:
        """Return the estimates from all samples so far, or from those of some batches; raises as `table`."""
        read = self._read_all(batches)
        return LatencyEstimates(
            reference_id,
            [segment for segment, _ in read],
            [samples for _, samples in read],
            {key: unit_digest(record.unit) for key, record in self._batches.items() if record.unit},
        )

    def _read_all(self, batches: Collection[int] | None = None) -> list[tuple[Segment, pa.Table]]:
        if not self._segments:
            raise InvalidArtifactError(
                "the journal has no samples yet; run the measurement first", code="no_samples"
            )
        keys = sorted(key for key in self._segments if batches is None or key[0] in batches)
        return [self._read(key) for key in keys]

    def _read(self, key: tuple[int, int]) -> tuple[Segment, pa.Table]:
        cached, kept = self._segments[key], key[0] not in self._rejected
        if cached.read is None or cached.read[0].kept != kept:
            tables = [_samples_of(batch, rounds, kept) for batch, rounds in cached.runs]
            samples = normalise_samples(pa.concat_tables(tables))
            (segment,) = segments_of(samples)
            cached.read = segment, samples
        return cached.read


def _samples_of(batch: BatchRecord | None, rounds: RoundsRecord, kept: bool) -> pa.Table:
    if batch is None:
        raise InvalidArtifactError(
            f"journal: samples of batch {rounds.batch}, which was never started", code="invalid_journal"
        )
    timed = rounds.timed_calls()
    slots = np.asarray(rounds.order, dtype=np.int64)[:, timed]
    if slots.max(initial=0) >= len(batch.slots):
        raise InvalidArtifactError(
            f"journal: batch {batch.batch} calls a model that it did not load", code="invalid_journal"
        )
    numbers, positions = np.indices(slots.shape)
    return pa.table(
        {
            "batch": np.full(slots.size, batch.batch),
            "segment": np.full(slots.size, batch.segment),
            "round": rounds.first_round + numbers.ravel(),
            "position": positions.ravel(),
            "model": np.asarray(batch.slots, dtype=object)[slots.ravel()],
            "copy": np.asarray(batch.copies)[slots.ravel()],
            "ns": rounds.ns[:, timed].ravel(),
            "kept": np.full(slots.size, kept),
        }
    )


class MeasurementLog(Closeable):
    """A journal whose first record is the header; every append reaches the disk before anything else happens.

    Several threads may use it. `unit` is the serial of the fleet's unit that writes, empty for a single device.
    """

    unit = ""

    def __init__(self, path: Path, header: Header) -> None:
        """Open or create the journal.

        Raises MeasurementRejectedError: it is of another device, runtime, agent, plan or model.
        """
        self._journal = Journal(path)
        self.records: list[Record] = []
        self._samples = JournalSamples()
        self._rounds: dict[int, list[RoundsRecord]] = {}
        self._rejected_runs: dict[int, int] = {}
        self._lock = threading.RLock()
        try:
            for document in self._journal.records:
                self._add(parse_record(document))
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
            self._add(record)

    def _add(self, record: Record) -> None:
        self.records.append(record)
        self._samples.add(record)
        if isinstance(record, RoundsRecord) and record.rejected:
            self._rejected_runs[record.batch] = self.rejected_runs(record.batch) + 1
        elif isinstance(record, RoundsRecord):
            self._rounds.setdefault(record.batch, []).append(record)

    def close(self) -> None:
        """Release the file."""
        self._journal.close()

    def estimation(self, batches: Collection[int] | None = None) -> LatencyEstimates:
        """Return the estimates from the samples so far, of all batches or of some."""
        with self._lock:
            return self._samples.estimation(self.header.reference_id, batches)

    def ends(self) -> dict[int, EndRecord]:
        """Return the verdicts by batch."""
        return {record.batch: record for record in self.records if isinstance(record, EndRecord)}

    def batches(self) -> dict[int, BatchRecord]:
        """Return the latest segment of every batch."""
        return {record.batch: record for record in self.records if isinstance(record, BatchRecord)}

    def closed_batches(self) -> set[int]:
        """Return the batches that have a verdict and samples."""
        with self._lock:
            return self.ends().keys() & self._rounds.keys()

    def next_batch(self) -> int:
        """Return the number of the next new batch."""
        return max(self.batches(), default=-1) + 1

    def open_batch(self) -> BatchRecord | None:
        """Return a batch that has no verdict, as its next segment; None if there is none."""
        ends = self.ends()
        for number, batch in self.batches().items():
            if number not in ends:
                return batch.model_copy(update={"segment": batch.segment + 1})
        return None

    def choices(self) -> list[ChoiceRecord]:
        """Return the networks that were chosen while measuring, in order."""
        return [record for record in self.records if isinstance(record, ChoiceRecord)]

    def failures(self) -> dict[str, str]:
        """Return the models that can't be measured on this device, with the reason."""
        return {record.model: record.reason for record in self.records if isinstance(record, FailureRecord)}

    def rounds(self, batch: int) -> int:
        """Return how many rounds of a batch are in the journal."""
        return max((run.first_round + len(run.order) for run in self._rounds.get(batch, ())), default=0)

    def rejected_runs(self, batch: int) -> int:
        """Return how many runs of a batch's rounds do not count."""
        return self._rejected_runs.get(batch, 0)

    def longest_segment(self, batch: int) -> int:
        """Return the number of rounds of the batch's longest segment."""
        per_segment: dict[int, int] = {}
        for run in self._rounds.get(batch, ()):
            per_segment[run.segment] = per_segment.get(run.segment, 0) + len(run.order)
        return max(per_segment.values(), default=0)

    def throttle_reason(self, batch: int) -> str:
        """Return why the device's states invalidate a batch; empty if nothing does."""
        variant = Variant.parse(self.header.identity.variant)
        for run in self._rounds.get(batch, ()):
            if reason := throttle_reason(run.state_before, run.state_after, variant.cores):
                return reason
            modes = (run.state_before.sustained_performance, run.state_after.sustained_performance)
            if variant.sustained_performance and False in modes:
                return "sustained performance mode was off"
        return ""

    def overheats(self, batch: int) -> bool:
        """Return whether the device throttled in a batch that started cool, after the pause for another one."""
        batches = self.batches()
        earlier = [
            number for number in batches if number < batch and batches[number].unit == batches[batch].unit
        ]
        if not (earlier and self.throttle_reason(batch) and self.throttle_reason(max(earlier))):
            return False
        first = self._rounds[batch][0].state_before
        return not throttle_reason(first, first)


def self_test_decision(records: Iterable[Record]) -> DecisionRecord | None:
    """Return what the self-test decided; None if there was none."""
    return next((record for record in records if isinstance(record, DecisionRecord)), None)


def policy_in_effect(header: Header, decided: DecisionRecord | None) -> dict[str, int | float | str]:
    """Return a journal's policy with the values that the self-test has changed."""
    if decided is None:
        return {**header.identity.policy}
    changed = decided.model_dump(include={"settle_runs", "batch_models", "keep_warm"})
    return {**header.identity.policy, **changed, "company": " ".join(decided.reason.split())[:256]}


def placements(records: Iterable[Record]) -> dict[str, list[PlacedType]]:
    """Return operations with their compute units by model."""
    return {record.model: record.operations for record in records if isinstance(record, PlacementRecord)}


def traces(records: Iterable[Record]) -> dict[str, list[float]]:
    """Return milliseconds of traced operators by program."""
    return {record.model: record.operator_ms for record in records if isinstance(record, TraceRecord)}


def read_log(path: Path) -> list[Record]:
    """Return the records of a journal, the header first; another process may be writing it.

    Raises InvalidArtifactError: the file is damaged, or not a journal.
    """
    records = [parse_record(document) for document in read_records(path)]
    _header_of(path, records)
    return records


def _header_of(path: Path, records: Sequence[Record]) -> Header:
    if records and isinstance(records[0], Header):
        return records[0]
    raise InvalidArtifactError(
        f"{path} is not a journal of `bench`: it does not start with a header", code="not_a_journal"
    )


def _require_same(path: Path, old: Identity, new: Identity) -> None:
    changed = old.differences(new)
    if changed:
        raise MeasurementRejectedError(
            f"{path} was started under other conditions: {'; '.join(changed)}; samples are not mixed: finish it "
            "under the old conditions, or start over with bench profile --fresh (elsewhere: move the folder away)",
            code="conditions_changed",
        )
