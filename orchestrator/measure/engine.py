"""Passes over a set of models: each pass loads every model once more, in batches of random combinations."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from luts.estimate.latencies import LatencyEstimates
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, ChoiceRecord, EndRecord, MeasurementRejectedError
from orchestrator.measure.batches import BatchKey, BatchRunner, pass_groups
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile

ProgressCallback = Callable[[str, int, int], None]
"""Called with the current activity, steps done, and steps in all (0 and 0 for a message without steps)."""


def ignore_progress(message: str, done: int, total: int) -> None:
    """Show nothing."""


PredictionHalfWidth = Callable[[LatencyEstimates], float | None]
"""Relative half-width of predictions, given the estimates so far; None if unknown."""


class AdaptivePlanner(Protocol):
    """Chooses further networks while measuring; its choices are in the journal, from which a new run reads them."""

    def choose(
        self, pass_index: int, estimation: LatencyEstimates, half_width: float | None
    ) -> ChoiceRecord | None:
        """Return the next networks, given the estimates so far; None for no more."""

    def take(self, choice: ChoiceRecord) -> Mapping[str, ModelFile]:
        """Return the files of networks that were chosen now or before an interruption."""


StopReason = Literal["narrow", "predictions", "budget", "passes"]
"""Why measuring ended: every model is narrow, predictions are narrow, time is up, or all passes are done."""


@dataclass(frozen=True)
class ModelSet:
    """Models to measure: files by id, the reference's among them.

    Journals of a set with another `plan_digest` are refused; `seed` is that of all schedules.
    """

    files: Mapping[str, ModelFile]
    reference_id: str
    plan_digest: str
    seed: int


@dataclass(frozen=True)
class EngineOptions:
    """When a measurement ends, and whom it notifies.

    Attributes:
        budget_s: Seconds after which no further pass starts.
        progress: Called for every batch, and with messages.
        prediction_half_width: Measuring also ends as soon as predictions are narrow by this function.
        planner: Adds networks until predictions are narrow.
        models: Models of the set to measure; default: all.
    """

    budget_s: float
    progress: ProgressCallback = ignore_progress
    prediction_half_width: PredictionHalfWidth | None = None
    planner: AdaptivePlanner | None = None
    models: Sequence[str] | None = None

    def notify(self, message: str) -> None:
        """Report a message without steps."""
        self.progress(message, 0, 0)


@dataclass(frozen=True)
class BatchTask:
    """Models to measure together on one device; `run` resumes where an earlier attempt was interrupted."""

    models: tuple[str, ...]
    run: Callable[[DeviceConnection, MeasurementLog], None]


class DeviceExecutor(Protocol):
    """Runs tasks on one device, or on the devices of a fleet."""

    def run_all(self, tasks: Sequence[BatchTask]) -> None:
        """Run every task on some device; return when the last is done, raise what a task raises."""


@dataclass(frozen=True)
class SingleDevice:
    """One device, which runs one task after the other."""

    connection: DeviceConnection
    log: MeasurementLog

    def run_all(self, tasks: Sequence[BatchTask]) -> None:
        """Run the tasks in order."""
        for task in tasks:
            task.run(self.connection, self.log)


@dataclass(frozen=True)
class EngineResult:
    """Estimates from all samples, why measuring ended, and the last half-width of predictions (None: unknown)."""

    estimation: LatencyEstimates
    ending: StopReason
    prediction_half_width: float | None = None


class Engine:
    """Measures models against the log's reference until all are narrow, or passes or time are used up.

    With `prediction_half_width` it also ends once predictions are narrow. That looks at held-out models after every
    pass, and stopping at a look that happens to be narrow makes the final interval a little too narrow. Little,
    because the looks are few (`max_passes` - `min_passes`) and nearly the same look: the held-out networks stay the
    same, and the main part of their errors at that size, networks that do not add up, does not change with a pass.
    `test_stopping.py` measures the loss: about a point of coverage at worst.

    With a `planner` networks are added: while predictions are wide and time is left, it chooses the next ones,
    which then have `min_passes` of their own.

    All state is in the log: a new engine on the same log continues where the old one was stopped.
    """

    def __init__(
        self,
        executor: DeviceExecutor,
        model_set: ModelSet,
        log: MeasurementLog,
        policy: Policy,
        options: EngineOptions,
    ) -> None:
        """Prepare a measurement; networks that the log names as chosen are added."""
        models = options.models or list(model_set.files)
        self._first_models = [model for model in models if model != log.header.reference_id]
        self.models = list(self._first_models)
        self.log, self.policy, self.seed = log, policy, model_set.seed
        self._executor, self._files, self._options = executor, dict(model_set.files), options
        self._progress, self._planner = options.progress, options.planner
        self._batch_policy = policy
        for choice in log.choices() if self._planner else ():
            self._add_chosen(choice)

    def run(self) -> EngineResult:
        """Measure; the first `min_passes` are run even if they exceed the time budget.

        Raises:
            MeasurementRejectedError: One batch was rejected `max_attempts` times.
            AgentLostError: The device was lost and did not come back.
        """
        deadline_s = time.monotonic() + self._options.budget_s
        pass_index = 0
        while (result := self._finished(pass_index, deadline_s)) is None:
            self._run_pass(pass_index)
            pass_index += 1
        return result

    def _finished(self, pass_index: int, deadline_s: float) -> EngineResult | None:
        """Return the result if no further pass is needed; None to run the next one."""
        passes = pass_index - self._generation(pass_index)[0]
        if passes < self._min_passes:
            return None
        result = self._assess()
        if time.monotonic() <= deadline_s and self._choose_networks(pass_index, result):
            return None
        is_done = result.ending != "passes" or passes >= self.policy.max_passes
        if is_done and self._fewest_calls(result.estimation) >= self.policy.calls:
            return result
        if time.monotonic() > deadline_s:
            return result if is_done else replace(result, ending="budget")
        if is_done:  # only calls are missing: longer batches, since further loads add little and take time
            rounds = 2 * self.policy.max_rounds
            self._batch_policy = replace(self.policy, min_rounds=rounds, max_rounds=rounds)
        return None

    @property
    def _min_passes(self) -> int:
        return min(self.policy.min_passes, self.policy.max_passes)

    def _generation(self, pass_index: int) -> tuple[int, list[str]]:
        """Return the networks that were chosen last up to a pass: their first pass, and their ids."""
        first, models = 0, self._first_models
        for choice in self.log.choices():
            if choice.pass_index <= pass_index:
                first, models = choice.pass_index, [chosen.model for chosen in choice.models]
        return first, models

    def _choose_networks(self, pass_index: int, result: EngineResult) -> bool:
        """Let the planner add networks from this pass on, unless predictions are narrow; return whether it did."""
        if self._planner is None:
            return False
        width = result.prediction_half_width
        if width is None:
            width = self._half_width(result.estimation)
        if width is not None and width <= self.policy.heldout_half_width:
            return False
        choice = self._planner.choose(pass_index, result.estimation, width)
        if choice is None:
            return False
        self.log.append(choice)
        self._add_chosen(choice)
        return True

    def _add_chosen(self, choice: ChoiceRecord) -> None:
        if self._planner is not None:
            self._files.update(self._planner.take(choice))
            self.models += [chosen.model for chosen in choice.models]

    def _fewest_calls(self, estimation: LatencyEstimates) -> int:
        failed, ratios = self.log.failures(), estimation.ratios
        return min(
            ratios[model].rounds
            for model in (self.log.header.reference_id, *self.models)
            if model not in failed
        )

    def _assess(self) -> EngineResult:
        """Return the estimates after a pass; the ending is `passes` if nothing is narrow yet."""
        estimation = self.log.estimation()
        if self._is_narrow(estimation):
            return EngineResult(estimation, "narrow")
        width = self._half_width(estimation)
        narrow = width is not None and width <= self.policy.heldout_half_width
        return EngineResult(estimation, "predictions" if narrow else "passes", width)

    def _half_width(self, estimation: LatencyEstimates) -> float | None:
        half_width = self._options.prediction_half_width
        return half_width(estimation) if half_width else None

    def _is_narrow(self, estimation: LatencyEstimates) -> bool:
        widths = [(ratio.high - ratio.low) / 2 for ratio in estimation.ratios.values()]
        return max(widths, default=0.0) <= self.policy.half_width

    def _run_pass(self, pass_index: int) -> None:
        groups, done = self._groups(pass_index), itertools.count(1)
        activity = f"pass {pass_index + 1}: measuring"

        def make_task(group: int, models: list[str]) -> BatchTask:
            def run(connection: DeviceConnection, log: MeasurementLog) -> None:
                self._measure_group(connection, log, BatchKey(pass_index, group, 0), models)
                self._progress(activity, next(done), len(groups))

            return BatchTask(tuple(models), run)

        self._progress(activity, 0, len(groups))
        self._executor.run_all([make_task(group, models) for group, models in enumerate(groups)])

    def _groups(self, pass_index: int) -> list[list[str]]:
        failed, (first, newest) = self.log.failures(), self._generation(pass_index)
        newest_only = first > 0 and pass_index - first < self._min_passes
        models = [model for model in (newest if newest_only else self.models) if model not in failed]
        if newest_only and not models:
            return []
        return pass_groups(models, self.seed, pass_index, self.policy.batch_models)

    def _measure_group(
        self, connection: DeviceConnection, log: MeasurementLog, key: BatchKey, models: list[str]
    ) -> None:
        """Measure models together until a batch with each is kept; in smaller batches if the device overheats."""
        runner = BatchRunner(connection, self._files, log, self._batch_policy, self._options.notify)
        while True:
            failed, ended = self.log.failures(), self._ended(key.pass_index)
            # Of the whole pass, not of the group: a failure changes the groups of a run that is resumed.
            kept = {model for batch, end in ended if end.kept for model in batch.slots}
            missing = [model for model in models if model not in kept and model not in failed]
            if kept and not missing:
                return
            part = missing[: self._most_models()]
            rejected = [
                end
                for batch, end in ended
                if not end.kept and self._models(batch) == set(part) and batch.unit == log.unit
            ]
            if len(rejected) >= self.policy.max_attempts:
                raise MeasurementRejectedError(
                    f"a batch was rejected {len(rejected)} times, the last time because {rejected[-1].reason}; let "
                    "the device idle or cool and run the same command again; measurements so far are kept",
                    code="batch_rejected",
                )
            attempt = sum(batch.group == key.group for batch, _ in ended)
            end = runner.run(replace(key, attempt=attempt), part)
            if not end.kept:
                self._notify_rejected(key, end, len(part))

    def _notify_rejected(self, key: BatchKey, end: EndRecord, models: int) -> None:
        most = self._most_models()
        smaller = f", in batches of {most} models" if most < models else ""
        self._progress(f"pass {key.pass_index + 1}: repeating a batch ({end.reason}){smaller}", key.group, 0)

    def _most_models(self) -> int:
        """Return the most models of a batch: half as many as in the smallest batch that overheated the device."""
        too_many = [
            len(self._models(batch))
            for batch in self.log.batches().values()
            if self.log.overheats(batch.batch)
        ]
        return min([self.policy.batch_models, *(max(1, math.ceil(count / 2)) for count in too_many)])

    def _models(self, batch: BatchRecord) -> set[str]:
        """Return a batch's models without the reference and those that failed later."""
        return set(batch.slots) - {self.log.header.reference_id} - self.log.failures().keys()

    def _ended(self, pass_index: int) -> list[tuple[BatchRecord, EndRecord]]:
        ends = self.log.ends()
        mine = [batch for batch in self.log.batches().values() if batch.pass_index == pass_index]
        return [(batch, ends[batch.batch]) for batch in mine if batch.batch in ends]
