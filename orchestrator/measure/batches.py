"""One batch: fresh loads side by side, rounds in random order until the ratios are narrow, then a verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

from luts.errors import InvalidArtifactError
from luts.estimate.aa import AA_MEMORY, AaInterval, aa_history, aa_interval, first_history
from luts.estimate.location import MIN_ROUNDS
from luts.estimate.ratios import load_ratios
from luts.estimate.rounds import sessions
from orchestrator.measure.failures import culprits, refusal
from orchestrator.measure.link import Link, ModelFile
from orchestrator.measure.log import MeasurementLog
from orchestrator.measure.policy import Policy
from orchestrator.measure.readiness import run_when_ready
from orchestrator.measure.records import (
    BatchRecord,
    ChunkRecord,
    EndRecord,
    FailureRecord,
    PlacementRecord,
    pack_nanoseconds,
)
from orchestrator.wire.client import LoadedModel
from orchestrator.wire.errors import AgentError, AgentLost


@dataclass(frozen=True)
class BatchKey:
    """Which batch: pass, group within the pass, attempt at it."""

    pass_index: int
    group: int
    attempt: int


class _ModelFailed(Exception):
    def __init__(self, model: str, reason: str):
        self.model, self.reason = model, reason


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

    def run(self, key: BatchKey, models: list[str]) -> EndRecord:
        """Measure the reference, twice loaded, and `models` beside each other; goes on where the log ends.

        A model that the runtime refuses, or that takes the agent down twice when it runs alone, is noted in the
        log and left out from then on.

        Raises:
            AgentLost: the device was lost more than `max_reconnects` times; what was measured is in the log.
            InvalidArtifactError: the reference itself can't be measured on this device.
        """
        losses, deaths = 0, 0
        while True:
            batch = self._without_failed(self.log.open_batch() or self._new_batch(key, models))
            starts = self.link.device.agent_starts
            try:
                if not self._done(batch):
                    self._measure(batch)
                return self._judge(batch)
            except _ModelFailed as failed:
                self._note_failure(failed.model, failed.reason)
            except AgentLost:
                self.link.drop()
                losses += 1
                if losses > self.policy.max_reconnects:
                    raise
                self.link.hello()
                deaths += self.link.device.agent_starts > starts
                if deaths > 1:
                    self._tell("the agent died twice: looking for the model that does it")
                    for model, reason in culprits(self.link, self.files, batch.slots).items():
                        self._note_failure(model, reason)
                    deaths = 0

    def _note_failure(self, model: str, reason: str) -> None:
        if model == self.log.header.reference_id:
            raise InvalidArtifactError(
                f"the reference model can't be measured on {self.link.device.name}: {reason}; "
                "choose another runtime, backend or precision"
            )
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
        rng = random.Random(f"{self.seed}:{batch.batch}:{batch.segment}")
        loading = list(range(len(batch.slots)))
        rng.shuffle(loading)
        loaded = {slot: self._load(batch.slots[slot]) for slot in loading}
        loads = [loaded[slot] for slot in range(len(batch.slots))]
        times = {
            name: [getattr(load, name) for load in loads] for name in ("load_ns", "compile_ns", "cached")
        }
        self.log.append(batch.model_copy(update=times))
        handles = [load.handle for load in loads]
        warmup = self.policy.warmup
        while not self._done(batch):
            self._chunk(batch, handles, self.log.rounds(batch.batch), warmup)
            warmup = 0
        for handle in handles:
            self.link.client.unload(handle)

    def _load(self, model: str) -> LoadedModel:
        try:
            loaded = self.link.load(self.files[model])
        except AgentError as error:
            raise _ModelFailed(model, refusal(error)) from error
        if loaded.placement and loaded.placement.operations and model not in self.log.placements():
            placed = [(operation.type, operation.unit) for operation in loaded.placement.operations]
            self.log.append(PlacementRecord(model=model, operations=placed))
        return loaded

    def _chunk(self, batch: BatchRecord, handles: list[int], first_round: int, warmup: int) -> None:
        visits = self.policy.settle_runs + 1
        order = [
            [slot for slot in self._round(batch, first_round + i) for _ in range(visits)]
            for i in range(min(self.policy.chunk_rounds, self.policy.max_rounds - first_round))
        ]
        result = run_when_ready(self.link.client, handles, order, warmup, self._tell)
        self.log.append(
            ChunkRecord(
                batch=batch.batch,
                segment=batch.segment,
                first_round=first_round,
                settle_runs=self.policy.settle_runs,
                order=order,
                ns=pack_nanoseconds(result.samples),
                state_before=result.state_before.model_dump(),
                state_after=result.state_after.model_dump(),
            )
        )

    def _round(self, batch: BatchRecord, number: int) -> list[int]:
        """The order of one round: the same for the same batch, however often it was cut off."""
        slots = list(range(len(batch.slots)))
        random.Random(f"{self.seed}:{batch.batch}:round:{number}").shuffle(slots)
        return slots

    def _done(self, batch: BatchRecord) -> bool:
        """Enough rounds: the most allowed, or some load of every model narrow enough."""
        rounds = self.log.rounds(batch.batch)
        if rounds < self.policy.min_rounds or rounds >= self.policy.max_rounds:
            return rounds >= self.policy.max_rounds
        reference = self.log.header.reference_id
        samples = self.log.samples({batch.batch})
        ratios = load_ratios(sessions(samples), reference, frozenset(batch.slots))
        narrow = {ratio.model for ratio in ratios if ratio.se <= self.policy.load_se}
        return narrow >= set(batch.slots) - {reference}

    def _judge(self, batch: BatchRecord) -> EndRecord:
        """Keep the batch, unless the device throttled in it or its two references disagree."""
        throttled = self.log.throttled(batch.batch)
        aa = self._aa(batch)
        if throttled:
            reason = throttled
        elif aa and not aa.compatible:
            reason = f"two loads of the reference differ by {100 * aa.log_difference:+.2f} %"
        else:
            reason = ""
        end = EndRecord(batch=batch.batch, kept=not reason, reason=reason, aa=list(astuple(aa)) if aa else [])
        self.log.append(end)
        if throttled:
            time.sleep(self.policy.cooling_s)
        return end

    def _aa(self, batch: BatchRecord) -> AaInterval | None:
        """The A/A log difference and its 95 % interval; None where no segment has enough rounds for one."""
        if self.log.longest_segment(batch.batch) < MIN_ROUNDS:
            return None
        reference = self.log.header.reference_id
        earlier = set(sorted(self.log.closed_batches())[-AA_MEMORY:])
        history = aa_history(self.log.samples(earlier), reference) if earlier else first_history()
        return aa_interval(self.log.samples({batch.batch}), reference, history)
