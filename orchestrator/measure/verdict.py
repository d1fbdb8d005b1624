"""What was run in a batch as a record, and whether the batch counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from luts.estimate.aa import AA_MEMORY, AaInterval
from luts.estimate.location import MIN_ROUNDS
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, ChunkRecord, EndRecord, pack_nanoseconds
from orchestrator.wire.client import RunResult


def chunk_record(
    batch: BatchRecord,
    first_round: int,
    settle_runs: int,
    order: Sequence[Sequence[int]],
    result: RunResult,
    rejected: str = "",
) -> ChunkRecord:
    """Some rounds of a batch as the log takes them."""
    return ChunkRecord(
        batch=batch.batch,
        segment=batch.segment,
        first_round=first_round,
        settle_runs=settle_runs,
        order=[list(visited) for visited in order],
        ns=pack_nanoseconds(result.samples),
        state_before=result.state_before.model_dump(),
        state_after=result.state_after.model_dump(),
        warmed=result.warmed,
        rejected=rejected,
    )


def judge(log: MeasurementLog, batch: int, cut_off: str = "") -> EndRecord:
    """Keep the batch, unless the device throttled in it or its two references disagree; the verdict is in the log.

    `cut_off` says why it was never finished, which rejects it too.
    """
    aa = _aa(log, batch)
    reason = cut_off or log.throttled(batch)
    if not reason and aa and not aa.compatible:
        reason = f"two loads of the reference differ by {100 * aa.log_difference:+.2f} %"
    end = EndRecord(batch=batch, kept=not reason, reason=reason, aa=list(astuple(aa)) if aa else [])
    log.append(end)
    return end


def _aa(log: MeasurementLog, batch: int) -> AaInterval | None:
    """The A/A log difference and its 95 % interval; None where no segment has enough rounds for one."""
    if log.longest_segment(batch) < MIN_ROUNDS:
        return None
    earlier = set(sorted(log.closed_batches())[-AA_MEMORY:])
    return log.estimation({batch}).aa_interval(log.estimation(earlier).aa_history)
