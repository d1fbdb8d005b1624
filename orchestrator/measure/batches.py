"""One batch: fresh loads side by side, rounds in random order until the ratios are narrow, then a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import (
    BatchRecord,
    EndRecord,
    FailureRecord,
    PlacementRecord,
)
from orchestrator.journal.throttle import moved_cap
from orchestrator.measure.failures import DeadlyModels, ReferenceFailedError, refusal
from orchestrator.measure.link import Link
from orchestrator.measure.readiness import MEMORY_WAIT_S, WAIT_S, MemoryWait, cool_down, run_when_ready
from orchestrator.measure.schedule import load_order, round_orders
from orchestrator.measure.verdict import chunk_record, judge
from orchestrator.plan.policy import Policy
from orchestrator.wire.errors import AgentError, AgentLost
from orchestrator.wire.model_file import ModelFile
from orchestrator.wire.replies import LoadReply

_TOLD = ("load_ns", "compile_ns", "cached", "input_buffers")


@dataclass(frozen=True)
class BatchKey:
    """Which batch: pass, group within the pass, attempt at it."""

    pass_index: int
    group: int
    attempt: int


class _ModelFailed(Exception):
    def __init__(self, model: str, error: AgentError):
        self.model, self.reason = model, refusal(error)
        self.no_memory = error.code == "out_of_memory"


class BatchRunner:
    """Runs batches on a device and writes all that happens to the log first."""

    def __init__(
        self,
        link: Link,
        files: Mapping[str, ModelFile],
        log: MeasurementLog,
        policy: Policy,
        seed: int,
        tell: Callable[[str], None],
    ):
        self.link, self.files, self.log, self.policy, self.seed = link, files, log, policy, seed
        self._tell = tell
        self._in_hand = ""

    def run(self, key: BatchKey, models: list[str]) -> EndRecord:
        """Measure the reference, twice loaded, and `models` beside each other; goes on where the log ends.

        A model that the runtime refuses, or that takes the agent down, is noted in the log and left out from then
        on: it costs the batch that it was in.

        Raises:
            AgentLost: the device was lost more than `max_reconnects` times; what was measured is in the log.
            ReferenceFailedError: the reference itself can't be measured on this device.
            MeasurementRejectedError: there is no memory for the reference.
        """
        losses, deadly, memory = 0, DeadlyModels(self.link, self.files, self._tell), MemoryWait(self._tell)
        while True:
            batch = self._without_failed(self.log.open_batch() or self._new_batch(key, models))
            starts = self.link.device.agent_starts
            try:
                if not self._done(batch):
                    cool_down(self.link, self.policy.cooling_s, self._tell)
                    self._measure(batch)
                end = judge(self.log, batch.batch)
                if self.log.throttled(batch.batch):
                    time.sleep(self.policy.cooling_s)
                return end
            except _ModelFailed as failed:
                if not (failed.no_memory and self._memory_may_come(memory, failed)):
                    self._note_failure(failed.model, failed.reason)
            except AgentLost:
                self.link.drop()
                losses += 1
                if losses > self.policy.max_reconnects:
                    raise
                self.link.hello()
                if self.link.device.agent_starts > starts:
                    found = deadly.after_death(batch.slots, self._in_hand)
                    for model, reason in found.items():
                        self._note_failure(model, reason)
                    losses = 0 if found else losses

    def _memory_may_come(self, memory: MemoryWait, failed: _ModelFailed) -> bool:
        of_reference = failed.model == self.log.header.reference_id
        again = memory.again(failed.reason, WAIT_S if of_reference else MEMORY_WAIT_S)
        if of_reference and not again:
            raise MeasurementRejectedError(
                f"no memory for the reference on {self.link.device.name} ({failed.reason}); close other programs "
                "and run the same command again, what was measured is kept"
            )
        return again

    def _note_failure(self, model: str, reason: str) -> None:
        if model == self.log.header.reference_id:
            raise ReferenceFailedError(self.link.device.name, reason)
        self._tell(f"left out {model}: {reason}")
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
        """Load everything afresh as a new segment of the batch and run rounds until all ratios are narrow."""
        loaded: dict[int, LoadReply] = {}
        try:
            for slot in load_order(len(batch.slots), self.seed, batch.batch, batch.segment):
                loaded[slot] = self._load(batch.slots[slot])
        except _ModelFailed:
            for load in loaded.values():
                self.link.client.unload(load.handle)
            raise
        loads = [loaded[slot] for slot in range(len(batch.slots))]
        told = {name: [getattr(load, name) for load in loads] for name in _TOLD}
        self.log.append(batch.model_copy(update=told))
        handles = [load.handle for load in loads]
        warmup = self.policy.warmup
        while not self._done(batch):
            self._chunk(batch, handles, self.log.rounds(batch.batch), warmup)
            warmup = 0
        for handle in handles:
            self.link.client.unload(handle)

    def _load(self, model: str) -> LoadReply:
        self._in_hand = model
        try:
            loaded = self.link.load(self.files[model], lambda s: self._tell_waited(f"loading {model}", s))
            if model not in self.log.placements():
                self._note_placement(model, loaded)
        except AgentError as error:
            self._in_hand = ""
            raise _ModelFailed(model, error) from error
        self._in_hand = ""
        return loaded

    def _note_placement(self, model: str, loaded: LoadReply) -> None:
        placement = loaded.placement or self.link.client.placement(
            loaded.handle, lambda s: self._tell_waited(f"reading where {model} runs", s)
        )
        if placement and placement.operations:
            placed = [(operation.type, operation.unit) for operation in placement.operations]
            self.log.append(PlacementRecord(model=model, operations=placed))

    def _tell_waited(self, what: str, seconds: float) -> None:
        self._tell(f"{what} for {seconds:.0f} s; the first time, a device may compile it for minutes")

    def _chunk(self, batch: BatchRecord, handles: list[int], first_round: int, warmup: int) -> None:
        rounds = min(self.policy.chunk_rounds, self.policy.max_rounds - first_round)
        order = round_orders(
            len(batch.slots), self.seed, batch.batch, first_round, rounds, self.policy.settle_runs
        )
        policy = self.policy
        warm = policy.keep_warm or None
        result = run_when_ready(
            self.link, handles, order, warmup, policy.warmup_ms, self._tell, policy.pace_us, warm
        )
        # After that many, the batch is rejected with its last chunk, and the device gets a pause.
        again = self.log.rejected_chunks(batch.batch) < self.policy.max_attempts
        moved = moved_cap(result.state_before, result.state_after)
        if moved and "throttled" in self.link.device.allow:
            caveats = sorted({*result.state_after.caveats, "throttled"})
            after = result.state_after.model_copy(update={"caveats": caveats})
            moved, result = "", replace(result, state_after=after)
        rejected = moved if again else ""
        if rejected:
            self._tell(f"repeating {len(order)} rounds, {rejected}")
        self.log.append(chunk_record(batch, first_round, self.policy.settle_runs, order, result, rejected))

    def _done(self, batch: BatchRecord) -> bool:
        """Enough rounds: the most allowed, or some load of every model narrow enough."""
        rounds = self.log.rounds(batch.batch)
        if rounds < self.policy.min_rounds or rounds >= self.policy.max_rounds:
            return rounds >= self.policy.max_rounds
        loads = self.log.estimation({batch.batch}).loads
        narrow = {load.model for load in loads if load.se <= self.policy.load_se}
        return narrow >= set(batch.slots) - {self.log.header.reference_id}
