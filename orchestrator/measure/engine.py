"""Passes over a set of models: each pass loads every model afresh once, in batches of random company."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal, Protocol

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import AA_MEMORY, AaInterval, RatioEstimates
from luts.estimate.statistics import MIN_ROUNDS
from orchestrator.journal.conditions import clock_cap_change
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import (
    BatchRecord,
    ChoiceRecord,
    EndRecord,
    FailureRecord,
    MeasurementRejectedError,
    PlacementRecord,
    RoundsRecord,
    pack_nanoseconds,
)
from orchestrator.measure.readiness import (
    MEMORY_WAIT_S,
    WAIT_S,
    DeadlyModels,
    DeviceConnection,
    MemoryWait,
    ReferenceFailedError,
    cool_down,
    refusal,
    run_when_ready,
)
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile, RunResult
from orchestrator.wire.errors import AgentError, AgentLostError
from orchestrator.wire.messages import LoadReply


def pass_groups(models: Iterable[str], seed: int, pass_index: int, batch_models: int) -> list[list[str]]:
    """A pass's batches: other company in every pass, sizes as equal as can be."""
    shuffled = list(models)
    random.Random(f"{seed}:pass:{pass_index}").shuffle(shuffled)
    count = max(1, math.ceil(len(shuffled) / batch_models))
    return [shuffled[start::count] for start in range(count)]


def load_order(slots: int, seed: int, batch: int, segment: int) -> list[int]:
    """The slots of a batch in the order of their loads."""
    loading = list(range(slots))
    random.Random(f"{seed}:{batch}:{segment}").shuffle(loading)
    return loading


def round_orders(
    slots: int, seed: int, batch: int, first_round: int, rounds: int, settle_runs: int
) -> list[list[int]]:
    """Visits of some rounds of a batch, each slot `settle_runs + 1` times in a row.

    A round is the same for the same batch, however often that was cut off.
    """
    orders = []
    for number in range(first_round, first_round + rounds):
        visited = list(range(slots))
        random.Random(f"{seed}:{batch}:round:{number}").shuffle(visited)
        orders.append([slot for slot in visited for _ in range(settle_runs + 1)])
    return orders


def rounds_record(
    batch: BatchRecord,
    first_round: int,
    settle_runs: int,
    order: Sequence[Sequence[int]],
    result: RunResult,
    rejected: str = "",
) -> RoundsRecord:
    """Some rounds of a batch as the log takes them."""
    return RoundsRecord(
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


def accept_or_reject(log: MeasurementLog, batch: int, cut_off: str = "") -> EndRecord:
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
        link: DeviceConnection,
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
            AgentLostError: the device was lost more than `max_reconnects` times; what was measured is in the log.
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
                end = accept_or_reject(self.log, batch.batch)
                if self.log.throttled(batch.batch):
                    time.sleep(self.policy.cooling_s)
                return end
            except _ModelFailed as failed:
                if not (failed.no_memory and self._memory_may_come(memory, failed)):
                    self._note_failure(failed.model, failed.reason)
            except AgentLostError:
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
        moved = clock_cap_change(result.state_before, result.state_after)
        if moved and "throttled" in self.link.device.allow:
            caveats = sorted({*result.state_after.caveats, "throttled"})
            after = result.state_after.model_copy(update={"caveats": caveats})
            moved, result = "", replace(result, state_after=after)
        rejected = moved if again else ""
        if rejected:
            self._tell(f"repeating {len(order)} rounds, {rejected}")
        self.log.append(rounds_record(batch, first_round, self.policy.settle_runs, order, result, rejected))

    def _done(self, batch: BatchRecord) -> bool:
        """Enough rounds: the most allowed, or some load of every model narrow enough."""
        rounds = self.log.rounds(batch.batch)
        if rounds < self.policy.min_rounds or rounds >= self.policy.max_rounds:
            return rounds >= self.policy.max_rounds
        loads = self.log.estimation({batch.batch}).loads
        narrow = {load.model for load in loads if load.se <= self.policy.load_se}
        return narrow >= set(batch.slots) - {self.log.header.reference_id}


ProgressCallback = Callable[[str, int, int], None]
"""Called with what goes on, steps done and steps in all."""

PredictionHalfWidth = Callable[[LatencyEstimates], float | None]
"""Relative half-width of predictions, given what all samples so far say; None where none can be told."""


class AdaptivePlanner(Protocol):
    """Chooses networks while measuring; what it chose stands in the journal, and it takes that in again."""

    def choose(
        self, pass_index: int, estimation: LatencyEstimates, half_width: float | None
    ) -> ChoiceRecord | None:
        """The next ones, given what all samples so far say; None where there are to be no more."""

    def take(self, choice: ChoiceRecord) -> Mapping[str, ModelFile]:
        """Files of networks that were chosen, now or before a run was cut off."""


StopReason = Literal["narrow", "predictions", "budget", "passes"]
"""Why measuring ended: every model is narrow, predictions are, the time is up, or all passes are made."""


@dataclass(frozen=True)
class BatchTask:
    """Models to measure beside each other, on one unit; `do` goes on where an earlier try of it was stopped."""

    models: tuple[str, ...]
    do: Callable[[DeviceConnection, MeasurementLog], None]


class DeviceExecutor(Protocol):
    """Who measures: one device, or units of a fleet."""

    def share(self, jobs: Sequence[BatchTask]) -> None:
        """Do all of them, each on one unit; returns when the last is done, and raises what a job raises."""


@dataclass(frozen=True)
class SingleDevice:
    """One device, which does one job after the other."""

    link: DeviceConnection
    log: MeasurementLog

    def share(self, jobs: Sequence[BatchTask]) -> None:
        """In their order."""
        for job in jobs:
            job.do(self.link, self.log)


@dataclass(frozen=True)
class EngineResult:
    """What all samples say, why measuring ended, and the last width of predictions (None: not asked for)."""

    estimation: LatencyEstimates
    ending: StopReason
    prediction_half_width: float | None = None


class Engine:
    """Measures `models` against the log's reference until all are narrow, the passes or the budget are used up.

    With `prediction_width` it also ends once predictions are narrow. That looks at held-out models after every
    pass, and stopping at a look that happens to be narrow makes the final interval a little too narrow. Little,
    because the looks are few (`max_passes` - `min_passes`) and nearly the same look: the held-out networks stay the
    same, and what their errors are made of at that size, networks that do not add up, does not change with a pass.
    `test_stopping.py` measures the loss: about a point of coverage at worst.

    With `further` networks are added as it goes: while predictions are not narrow and time is left, a look chooses
    the next ones, which then have `min_passes` of their own. Those that the log names are taken, none chosen twice.

    All state is in the log: a new engine on the same log goes on where the old one was stopped. `progress` is told
    of every batch, and of what is waited for.
    """

    def __init__(
        self,
        crew: DeviceExecutor,
        files: Mapping[str, ModelFile],
        models: Sequence[str],
        log: MeasurementLog,
        policy: Policy,
        seed: int,
        progress: ProgressCallback,
        prediction_width: PredictionHalfWidth | None = None,
        further: AdaptivePlanner | None = None,
    ):
        self._at_first = [model for model in models if model != log.header.reference_id]
        self.models = list(self._at_first)
        self.log, self.policy, self.seed = log, policy, seed
        self._progress, self._prediction_width = progress, prediction_width
        self._crew, self._files, self._further = crew, dict(files), further
        self._batch_policy = policy
        for choice in log.choices() if further else ():
            self._take(choice)

    def run(self, budget_s: float) -> EngineResult:
        """Measure; the first `min_passes` are made whatever the budget says.

        Passes that only more calls are wanted of have longer batches: their loads tell little more, and take time.

        Args:
            budget_s: Seconds after which no further pass is begun.

        Raises:
            MeasurementRejectedError: one batch was rejected `max_attempts` times.
            AgentLostError: the device went away and stayed away.
        """
        start_s = time.monotonic()
        for pass_index in itertools.count():
            passes = pass_index - self._generation(pass_index)[0]
            if passes >= self._fewest:
                outcome = self._look()
                if time.monotonic() - start_s <= budget_s and self._chosen(pass_index, outcome):
                    self._pass(pass_index)
                    continue
                is_done = outcome.ending != "passes" or passes >= self.policy.max_passes
                if is_done and self._calls(outcome.estimation) >= self.policy.calls:
                    return outcome
                if time.monotonic() - start_s > budget_s:
                    return outcome if is_done else replace(outcome, ending="budget")
                if is_done:
                    most = 2 * self.policy.max_rounds
                    self._batch_policy = replace(self.policy, min_rounds=most, max_rounds=most)
            self._pass(pass_index)
        raise AssertionError("passes are counted without an end")

    @property
    def _fewest(self) -> int:
        return min(self.policy.min_passes, self.policy.max_passes)

    def _generation(self, pass_index: int) -> tuple[int, list[str]]:
        """Of the networks chosen last, in this pass or before: their first pass, and which they are."""
        first, models = 0, self._at_first
        for choice in self.log.choices():
            if choice.pass_index <= pass_index:
                first, models = choice.pass_index, [chosen.model for chosen in choice.models]
        return first, models

    def _chosen(self, pass_index: int, outcome: EngineResult) -> bool:
        """Whether there are more networks from this pass on: not where predictions are narrow."""
        if self._further is None:
            return False
        width = outcome.prediction_half_width
        if width is None and self._prediction_width:
            width = self._prediction_width(outcome.estimation)
        if width is not None and width <= self.policy.heldout_half_width:
            return False
        choice = self._further.choose(pass_index, outcome.estimation, width)
        if choice is None:
            return False
        self.log.append(choice)
        self._take(choice)
        return True

    def _take(self, choice: ChoiceRecord) -> None:
        if self._further is not None:
            self._files.update(self._further.take(choice))
            self.models += [chosen.model for chosen in choice.models]

    def _calls(self, estimation: LatencyEstimates) -> int:
        """Of the model that has fewest."""
        failed, ratios = self.log.failures(), estimation.ratios.ratios
        return min(
            ratios[model].rounds
            for model in (self.log.header.reference_id, *self.models)
            if model not in failed
        )

    def _look(self) -> EngineResult:
        """Where measuring stands after a pass; the ending is `passes` where nothing is narrow yet."""
        estimation = self.log.estimation()
        if self._narrow(estimation.ratios):
            return EngineResult(estimation, "narrow")
        width = self._prediction_width(estimation) if self._prediction_width else None
        narrow = width is not None and width <= self.policy.heldout_half_width
        return EngineResult(estimation, "predictions" if narrow else "passes", width)

    def _narrow(self, estimates: RatioEstimates) -> bool:
        widths = [(ratio.high - ratio.low) / 2 for ratio in estimates.ratios.values()]
        return max(widths, default=0.0) <= self.policy.half_width

    def _pass(self, pass_index: int) -> None:
        groups, done = self._groups(pass_index), itertools.count(1)
        what = f"pass {pass_index + 1}: measuring"

        def job(group: int, models: list[str]) -> BatchTask:
            def do(link: DeviceConnection, log: MeasurementLog) -> None:
                self._until_kept(link, log, pass_index, group, models)
                self._progress(what, next(done), len(groups))

            return BatchTask(tuple(models), do)

        self._progress(what, 0, len(groups))
        self._crew.share([job(group, models) for group, models in enumerate(groups)])
        self._progress(f"pass {pass_index + 1}: measured", len(groups), len(groups))

    def _groups(self, pass_index: int) -> list[list[str]]:
        failed, (first, newest) = self.log.failures(), self._generation(pass_index)
        alone = first > 0 and pass_index - first < self._fewest
        models = [model for model in (newest if alone else self.models) if model not in failed]
        if alone and not models:
            return []
        return pass_groups(models, self.seed, pass_index, self.policy.batch_models)

    def _until_kept(
        self, link: DeviceConnection, log: MeasurementLog, pass_index: int, group: int, models: list[str]
    ) -> None:
        """Measure them side by side, in parts where the device does not stay cool for all of them."""
        runner = BatchRunner(
            link,
            self._files,
            log,
            self._batch_policy,
            self.seed,
            lambda message: self._progress(message, 0, 0),
        )
        while True:
            failed, ended = self.log.failures(), self._ended(pass_index)
            # Of the pass, not of the group: a failure changes the groups of a run that is taken up again.
            kept = {model for batch, end in ended if end.kept for model in batch.slots}
            left = [model for model in models if model not in kept and model not in failed]
            if kept and not left:
                return
            part = left[: self._most_models()]
            rejected = [
                end
                for batch, end in ended
                if not end.kept and self._models(batch) == set(part) and batch.unit == log.unit
            ]
            if len(rejected) >= self.policy.max_attempts:
                raise MeasurementRejectedError(
                    f"a batch was rejected {len(rejected)} times, last because {rejected[-1].reason}; "
                    "quiet or cool the device and run the same command again, what was measured is kept"
                )
            attempt = sum(batch.group == group for batch, _ in ended)
            end = runner.run(BatchKey(pass_index, group, attempt), part)
            if not end.kept:
                self._tell_rejected(pass_index, group, end, len(part))

    def _tell_rejected(self, pass_index: int, group: int, end: EndRecord, models: int) -> None:
        most = self._most_models()
        smaller = f", in batches of {most} models" if most < models else ""
        self._progress(f"pass {pass_index + 1}: repeating a batch ({end.reason}){smaller}", group, 0)

    def _most_models(self) -> int:
        """Models in a batch, besides the reference: half of those with which the device did not stay cool."""
        too_many = [
            len(self._models(batch))
            for batch in self.log.batches().values()
            if self.log.too_long(batch.batch)
        ]
        return min([self.policy.batch_models, *(max(1, math.ceil(count / 2)) for count in too_many)])

    def _models(self, batch: BatchRecord) -> set[str]:
        """Without the reference and those that failed later."""
        return set(batch.slots) - {self.log.header.reference_id} - self.log.failures().keys()

    def _ended(self, pass_index: int) -> list[tuple[BatchRecord, EndRecord]]:
        ends = self.log.ends()
        mine = [batch for batch in self.log.batches().values() if batch.pass_index == pass_index]
        return [(batch, ends[batch.batch]) for batch in mine if batch.batch in ends]
