"""Batches: models loaded together and called in random order next to the reference, journal first."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, replace

from luts.estimate.ratios import AA_MEMORY, AaInterval
from luts.estimate.statistics import MIN_ROUNDS
from orchestrator.journal.conditions import clock_cap_change
from orchestrator.journal.log import MeasurementLog, placements
from orchestrator.journal.records import (
    BatchRecord,
    EndRecord,
    FailureRecord,
    MeasurementRejectedError,
    PlacementRecord,
    RoundsRecord,
)
from orchestrator.measure.readiness import (
    MEMORY_WAIT_S,
    WAIT_S,
    CallSchedule,
    CrashingModels,
    DeviceConnection,
    MemoryWait,
    ReferenceFailedError,
    cool_down,
    refusal_reason,
    run_when_ready,
)
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile, RunResult
from orchestrator.wire.errors import AgentError, AgentLostError
from orchestrator.wire.messages import LoadReply


def pass_groups(models: Iterable[str], seed: int, pass_index: int, batch_models: int) -> list[list[str]]:
    """Return the batches of a pass: other combinations in every pass, sizes as equal as possible."""
    shuffled = list(models)
    random.Random(f"{seed}:pass:{pass_index}").shuffle(shuffled)
    count = max(1, math.ceil(len(shuffled) / batch_models))
    return [shuffled[start::count] for start in range(count)]


def load_order(slots: int, seed: int, batch: int, segment: int) -> list[int]:
    """Return the slots of a batch in the order of their loads."""
    order = list(range(slots))
    random.Random(f"{seed}:{batch}:{segment}").shuffle(order)
    return order


def round_orders(
    slots: int, seed: int, batch: int, first_round: int, rounds: int, settle_runs: int
) -> list[list[int]]:
    """Return the calls of some rounds of a batch, each slot `settle_runs + 1` times in a row.

    A round of a batch is always the same, however often the batch was interrupted.
    """
    orders = []
    for number in range(first_round, first_round + rounds):
        order = list(range(slots))
        random.Random(f"{seed}:{batch}:round:{number}").shuffle(order)
        orders.append([slot for slot in order for _ in range(settle_runs + 1)])
    return orders


def close_batch(log: MeasurementLog, batch: int, interruption: str = "") -> EndRecord:
    """Write the verdict on a batch to the log and return it.

    It is rejected if the device throttled, its two loads of the reference disagree, or it was never finished
    because of an `interruption`.
    """
    aa = _aa_interval(log, batch)
    reason = interruption or log.throttle_reason(batch)
    if not reason and aa and not aa.compatible:
        reason = f"two loads of the reference differ by {100 * aa.log_difference:+.2f} %"
    end = EndRecord(batch=batch, kept=not reason, reason=reason, aa=list(astuple(aa)) if aa else [])
    log.append(end)
    return end


def _aa_interval(log: MeasurementLog, batch: int) -> AaInterval | None:
    """Return the A/A interval; None if no segment has enough rounds for one."""
    if log.longest_segment(batch) < MIN_ROUNDS:
        return None
    earlier = set(sorted(log.closed_batches())[-AA_MEMORY:])
    return log.estimation({batch}).aa_interval(log.estimation(earlier).aa_history)


@dataclass(frozen=True)
class BatchKey:
    """Position of a batch: pass, group within the pass, attempt."""

    pass_index: int
    group: int
    attempt: int


class _ModelFailedError(Exception):
    def __init__(self, model: str, error: AgentError) -> None:
        self.model, self.reason = model, refusal_reason(error)
        self.no_memory = error.code == "out_of_memory"


@dataclass
class BatchRunner:
    """Runs batches on a device; everything is written to the log first.

    `notify` is called about waiting and excluded models; `loading` is the model that is being loaded.
    """

    connection: DeviceConnection
    files: Mapping[str, ModelFile]
    log: MeasurementLog
    policy: Policy
    notify: Callable[[str], None]
    loading: str = ""

    def run(self, key: BatchKey, models: list[str]) -> EndRecord:
        """Measure the reference (loaded twice) and `models` together, or resume the batch that the log has open.

        A model that the runtime refuses, or that crashes the agent, is noted in the log and excluded from then on;
        the batch it was in starts over.

        Raises:
            AgentLostError: The device was lost more than `max_reconnects` times; samples so far are in the log.
            ReferenceFailedError: The reference itself can't be measured on this device.
            MeasurementRejectedError: There is no memory for the reference.
        """
        losses, memory = 0, MemoryWait(self.notify)
        crashing = CrashingModels(self.connection, self.files, self.notify)
        while True:
            batch = self._without_failed(self.log.open_batch() or self._new_batch(key, models))
            starts = self.connection.device.agent_starts
            try:
                if not self._is_done(batch):
                    cool_down(self.connection, self.policy.cooling_s, self.notify)
                    self._measure(batch)
                end = close_batch(self.log, batch.batch)
                if self.log.throttle_reason(batch.batch):
                    time.sleep(self.policy.cooling_s)
                return end
            except _ModelFailedError as failed:
                if not (failed.no_memory and self._wait_for_memory(memory, failed)):
                    self._exclude(failed.model, failed.reason)
            except AgentLostError:
                self.connection.drop()
                losses += 1
                if losses > self.policy.max_reconnects:
                    raise
                self.connection.hello()
                if self.connection.device.agent_starts > starts:
                    found = crashing.find(batch.slots, self.loading)
                    for model, reason in found.items():
                        self._exclude(model, reason)
                    losses = 0 if found else losses

    def _wait_for_memory(self, memory: MemoryWait, failed: _ModelFailedError) -> bool:
        is_reference = failed.model == self.log.header.reference_id
        again = memory.wait(failed.reason, WAIT_S if is_reference else MEMORY_WAIT_S)
        if is_reference and not again:
            raise MeasurementRejectedError(
                f"no memory for the reference on {self.connection.device.name} ({failed.reason}); close other "
                "programs and run the same command again; measurements so far are kept",
                code="out_of_memory",
            )
        return again

    def _exclude(self, model: str, reason: str) -> None:
        if model == self.log.header.reference_id:
            raise ReferenceFailedError(self.connection.device.name, reason)
        self.notify(f"excluded {model}: {reason}")
        self.log.append(FailureRecord(model=model, reason=reason))

    def _without_failed(self, batch: BatchRecord) -> BatchRecord:
        failed = self.log.failures()
        kept = [i for i, model in enumerate(batch.slots) if model not in failed]
        slots, copies = [batch.slots[i] for i in kept], [batch.copies[i] for i in kept]
        return batch.model_copy(update={"slots": slots, "copies": copies})

    def _new_batch(self, key: BatchKey, models: list[str]) -> BatchRecord:
        reference = self.log.header.reference_id
        return BatchRecord(
            batch=self.log.next_batch(),
            segment=0,
            pass_index=key.pass_index,
            group=key.group,
            attempt=key.attempt,
            slots=[reference, reference, *models],
            copies=[0, 1] + [0] * len(models),
            load_ns=[],
        )

    def _measure(self, batch: BatchRecord) -> None:
        """Load all models as a new segment of the batch, and run rounds until all ratios are narrow."""
        loaded: dict[int, LoadReply] = {}
        try:
            for slot in load_order(len(batch.slots), self.log.header.seed, batch.batch, batch.segment):
                loaded[slot] = self._load(batch.slots[slot])
        except _ModelFailedError:
            for load in loaded.values():
                self.connection.client.unload(load.handle)
            raise
        loads = [loaded[slot] for slot in range(len(batch.slots))]
        self.log.append(batch.with_loads(loads))
        handles = [load.handle for load in loads]
        warmup = self.policy.warmup
        while not self._is_done(batch):
            self._run_rounds(batch, handles, self.log.rounds(batch.batch), warmup)
            warmup = 0
        for handle in handles:
            self.connection.client.unload(handle)

    def _load(self, model: str) -> LoadReply:
        self.loading = model
        try:
            loaded = self.connection.load(
                self.files[model], lambda seconds: self._notify_wait(f"loading {model}", seconds)
            )
            if model not in placements(self.log.records):
                self._write_placement(model, loaded)
        except AgentError as error:
            self.loading = ""
            raise _ModelFailedError(model, error) from error
        self.loading = ""
        return loaded

    def _write_placement(self, model: str, loaded: LoadReply) -> None:
        placement = loaded.placement or self.connection.client.placement(
            loaded.handle, lambda seconds: self._notify_wait(f"reading the placement of {model}", seconds)
        )
        if (record := PlacementRecord.of(model, placement)) is not None:
            self.log.append(record)

    def _notify_wait(self, action: str, seconds: float) -> None:
        self.notify(f"{action} for {seconds:.0f} s; the first time, a device may compile it for minutes")

    def _run_rounds(self, batch: BatchRecord, handles: list[int], first_round: int, warmup: int) -> None:
        policy = self.policy
        rounds = min(policy.chunk_rounds, policy.max_rounds - first_round)
        order = round_orders(
            len(batch.slots), self.log.header.seed, batch.batch, first_round, rounds, policy.settle_runs
        )
        schedule = CallSchedule(
            handles, order, warmup, policy.warmup_ms, policy.pace_us, policy.keep_warm or None
        )
        result = run_when_ready(self.connection, schedule, self.notify)
        cap_change, result = self._cap_change(result)
        # After `max_attempts` repetitions the batch is rejected by its last run, and the device gets a pause.
        repeat = self.log.rejected_runs(batch.batch) < policy.max_attempts
        rejected = cap_change if repeat else ""
        if rejected:
            self.notify(f"repeating {len(order)} rounds, {rejected}")
        record = RoundsRecord.from_run(batch, first_round, policy.settle_runs, order, result, rejected)
        self.log.append(record)

    def _cap_change(self, result: RunResult) -> tuple[str, RunResult]:
        """Return which core's clock limit changed during a run; if throttling is allowed, only a caveat of it."""
        change = clock_cap_change(result.state_before, result.state_after)
        if not (change and "throttled" in self.connection.device.allow):
            return change, result
        caveats = sorted({*result.state_after.caveats, "throttled"})
        after = result.state_after.model_copy(update={"caveats": caveats})
        return "", replace(result, state_after=after)

    def _is_done(self, batch: BatchRecord) -> bool:
        """Return whether the batch has the most rounds allowed, or a narrow enough load of every model."""
        rounds = self.log.rounds(batch.batch)
        if rounds < self.policy.min_rounds or rounds >= self.policy.max_rounds:
            return rounds >= self.policy.max_rounds
        loads = self.log.estimation({batch.batch}).loads
        narrow = {load.model for load in loads if load.se <= self.policy.load_se}
        return narrow >= set(batch.slots) - {self.log.header.reference_id}
