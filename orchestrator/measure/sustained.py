"""One model without a pause: chunks of calls with the device's state around each, in the journal first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, ChunkRecord, pack_nanoseconds
from orchestrator.measure.readiness import Link, ReferenceFailedError, refusal, run_when_ready
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLost

CHUNKS = 120
"""Of a whole run: points enough for a curve..."""

SHORTEST_S, LONGEST_S = 1.0, 10.0
"""...of which each lasts long beside a round trip, and not so long that the device heats up within one."""

FIRST_CALLS = 10
"""Of the first chunk, which tells how many calls the next one takes."""

MAX_CALLS = 20_000
"""Of a chunk; a model of 50 us makes as many in a second."""


def run_sustained(
    link: Link, file: ModelFile, log: MeasurementLog, duration_s: float, tell: Callable[[str, int, int], None]
) -> None:
    """Call the log's reference until it has run for `duration_s` in all, going on where the log ends.

    After a loss or an interruption it is loaded again, as a further segment: the device has cooled in between.

    Raises:
        AgentLost: the device was lost again and again; what was measured is in the log.
        MeasurementRejectedError: the device stays in no state to be measured.
        ReferenceFailedError: it can't run the model.
    """
    losses = 0
    while worked_s(log) < duration_s:
        before_s = worked_s(log)
        try:
            _segment(link, file, log, duration_s, tell)
        except AgentError as error:
            raise ReferenceFailedError(link.device.name, refusal(error)) from error
        except AgentLost:
            link.drop()
            losses = 1 if worked_s(log) > before_s else losses + 1
            if losses > log.header.identity.policy["max_reconnects"]:
                raise
            tell("the device was lost: connecting again", 0, 0)


def worked_s(log: MeasurementLog) -> float:
    """Seconds of calls in the log."""
    chunks = [record for record in log.records if isinstance(record, ChunkRecord)]
    return sum(float(chunk.nanoseconds().sum()) for chunk in chunks) / 1e9


def _segment(
    link: Link, file: ModelFile, log: MeasurementLog, duration_s: float, tell: Callable[[str, int, int], None]
) -> None:
    """Load the model afresh and call it to the end of the time."""
    earlier = [record for record in log.records if isinstance(record, BatchRecord)]
    before = link.client.state()
    loaded = link.load(file)
    batch = BatchRecord(
        batch=0,
        segment=len(earlier),
        pass_index=0,
        group=0,
        attempt=0,
        slots=[log.header.reference_id],
        copies=[0],
        load_ns=[loaded.load_ns],
        compile_ns=[loaded.compile_ns],
        cached=[loaded.cached],
        input_buffers=[loaded.input_buffers],
        state_before=before.model_dump(),
    )
    log.append(batch)
    chunk_s = min(max(duration_s / CHUNKS, SHORTEST_S), LONGEST_S)
    calls, warmup, done_s = FIRST_CALLS, int(log.header.identity.policy["warmup"]), worked_s(log)
    while done_s < duration_s:
        tell("running without a pause, seconds", int(done_s), int(duration_s))
        ns = _chunk(link, log, batch.segment, loaded.handle, calls, warmup, lambda text: tell(text, 0, 0))
        done_s += float(ns.sum()) / 1e9
        wanted_s = min(chunk_s, max(duration_s - done_s, 0.0))
        calls, warmup = max(1, min(MAX_CALLS, round(1e9 * wanted_s / float(np.median(ns))))), 0
    link.client.unload(loaded.handle)


def _chunk(
    link: Link,
    log: MeasurementLog,
    segment: int,
    handle: int,
    calls: int,
    warmup: int,
    tell: Callable[[str], None],
) -> np.ndarray:
    """Nanoseconds (calls,), once they are in the journal."""
    order = [[0] * calls]
    result = run_when_ready(link, [handle], order, warmup, 0, tell)
    chunk = ChunkRecord(
        batch=0,
        segment=segment,
        first_round=sum(isinstance(record, ChunkRecord) for record in log.records),
        settle_runs=0,
        order=order,
        ns=pack_nanoseconds(result.samples),
        state_before=result.state_before.model_dump(),
        state_after=result.state_after.model_dump(),
    )
    log.append(chunk)
    return result.samples.ravel()
