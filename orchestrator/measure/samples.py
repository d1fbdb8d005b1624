"""From journal records to the table of samples that estimates are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from luts.errors import InvalidArtifactError
from luts.samples import SAMPLES_SCHEMA, normalise_samples
from orchestrator.measure.records import BatchRecord, ChunkRecord, EndRecord, Record, timed_visits


def samples_table(records: Iterable[Record], batches: set[int] | None = None) -> pa.Table:
    """Every timed visit (settle runs left out) of all batches, or of `batches`, under `SAMPLES_SCHEMA`.

    A batch without an end counts as kept: it may still be going on.

    Raises:
        InvalidArtifactError: a chunk belongs to no batch, or there is not a single sample.
    """
    slots: dict[tuple[int, int], BatchRecord] = {}
    rejected: set[int] = set()
    parts: list[_Part] = []
    for record in records:
        if isinstance(record, BatchRecord):
            slots[record.batch, record.segment] = record
        elif isinstance(record, EndRecord) and not record.kept:
            rejected.add(record.batch)
        elif isinstance(record, ChunkRecord) and (batches is None or record.batch in batches):
            batch = slots.get((record.batch, record.segment))
            if batch is None:
                raise InvalidArtifactError(
                    f"journal: samples of batch {record.batch}, which was never opened"
                )
            parts.append(_part(batch, record))
    if not parts:
        raise InvalidArtifactError("the journal holds no samples yet; run the measurement first")
    return _table(parts, rejected)


class _Part:
    def __init__(self, batch: BatchRecord, rounds: np.ndarray, visits: np.ndarray, ns: np.ndarray):
        self.batch, self.rounds, self.visits, self.ns = batch, rounds, visits, ns


def _part(batch: BatchRecord, chunk: ChunkRecord) -> _Part:
    positions = timed_visits(chunk.order[0], chunk.settle_runs)
    order = np.asarray(chunk.order, dtype=np.int64)[:, positions]
    if order.max(initial=0) >= len(batch.slots):
        raise InvalidArtifactError(f"journal: batch {batch.batch} visits a model that it did not load")
    rounds = np.arange(chunk.first_round, chunk.first_round + len(order))
    return _Part(batch, rounds, order, chunk.nanoseconds()[:, positions])


def _table(parts: Sequence[_Part], rejected: set[int]) -> pa.Table:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in SAMPLES_SCHEMA.names}
    for part in parts:
        rounds, positions = np.indices(part.visits.shape)
        size = part.visits.size
        slot = part.visits.ravel()
        columns["batch"].append(np.full(size, part.batch.batch))
        columns["segment"].append(np.full(size, part.batch.segment))
        columns["round"].append(part.rounds[rounds.ravel()])
        columns["position"].append(positions.ravel())
        columns["model"].append(np.asarray(part.batch.slots, dtype=object)[slot])
        columns["copy"].append(np.asarray(part.batch.copies)[slot])
        columns["ns"].append(part.ns.ravel())
        columns["kept"].append(np.full(size, part.batch.batch not in rejected))
    return normalise_samples(pa.table({name: np.concatenate(values) for name, values in columns.items()}))
