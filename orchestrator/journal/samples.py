"""From journal records to samples and what is estimated from them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from luts.estimate.estimation import Estimation
from luts.estimate.sessions import Session, sessions
from luts.format.errors import InvalidArtifactError
from luts.format.samples import normalise_samples
from orchestrator.journal.records import BatchRecord, ChunkRecord, EndRecord, Record, timed_visits


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
    waiting: list[tuple[BatchRecord | None, ChunkRecord]] = field(default_factory=list)
    samples: pa.Table | None = None
    session: Session | None = None


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
        elif isinstance(record, ChunkRecord) and not record.rejected:
            place = record.batch, record.segment
            segment = self._segments.setdefault(place, _Segment())
            segment.waiting.append((self._opened.get(place), record))
            segment.samples = segment.session = None

    def table(self) -> pa.Table:
        """All samples so far, normalised."""
        return normalise_samples(pa.concat_tables([samples for _, samples in self._read_all()]))

    def estimation(self, reference_id: str, batches: Collection[int] | None = None) -> Estimation:
        """Of all samples so far, or of those of some batches.

        Raises:
            InvalidArtifactError: a chunk belongs to no batch, or there is not a single sample.
        """
        read = self._read_all(batches)
        return Estimation(
            reference_id,
            [session for session, _ in read],
            [samples for _, samples in read],
            {place: unit_digest(record.unit) for place, record in self._opened.items() if record.unit},
        )

    def _read_all(self, batches: Collection[int] | None = None) -> list[tuple[Session, pa.Table]]:
        if not self._segments:
            raise InvalidArtifactError("the journal holds no samples yet; run the measurement first")
        places = sorted(place for place in self._segments if batches is None or place[0] in batches)
        return [self._read(place) for place in places]

    def _read(self, place: tuple[int, int]) -> tuple[Session, pa.Table]:
        segment, kept = self._segments[place], place[0] not in self._rejected
        if segment.samples is None or segment.session is None:
            segment.parts += [_part(batch, chunk) for batch, chunk in segment.waiting]
            segment.waiting.clear()
            segment.samples = _with_verdict(pa.concat_tables(segment.parts), kept)
            (segment.session,) = sessions(segment.samples)
        elif segment.session.kept != kept:
            segment.samples = _with_verdict(segment.samples.drop_columns(["kept"]), kept)
            segment.session = replace(segment.session, kept=kept)
        return segment.session, segment.samples


def _with_verdict(samples: pa.Table, kept: bool) -> pa.Table:
    verdict = pa.array(np.full(samples.num_rows, kept))
    return normalise_samples(samples.append_column("kept", verdict))


def _part(batch: BatchRecord | None, chunk: ChunkRecord) -> pa.Table:
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
