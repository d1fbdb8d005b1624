"""Passes over a set of models: each pass loads every model afresh once, in batches of random company."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from luts.estimate.estimation import Estimation
from luts.estimate.ratios import RatioEstimates
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, ChoiceRecord, EndRecord
from orchestrator.measure.batches import BatchKey, BatchRunner
from orchestrator.measure.link import Link
from orchestrator.measure.schedule import pass_groups
from orchestrator.plan.policy import Policy
from orchestrator.wire.model_file import ModelFile

Progress = Callable[[str, int, int], None]
"""Called with what goes on, steps done and steps in all."""

PredictionWidth = Callable[[Estimation], float | None]
"""Relative half-width of predictions, given what all samples so far say; None where none can be told."""


class Further(Protocol):
    """Chooses networks while measuring; what it chose stands in the journal, and it takes that in again."""

    def choose(
        self, pass_index: int, estimation: Estimation, half_width: float | None
    ) -> ChoiceRecord | None:
        """The next ones, given what all samples so far say; None where there are to be no more."""

    def take(self, choice: ChoiceRecord) -> Mapping[str, ModelFile]:
        """Files of networks that were chosen, now or before a run was cut off."""


Ending = Literal["narrow", "predictions", "budget", "passes"]
"""Why measuring ended: every model is narrow, predictions are, the time is up, or all passes are made."""


@dataclass(frozen=True)
class Job:
    """Models to measure beside each other, on one unit; `do` goes on where an earlier try of it was stopped."""

    models: tuple[str, ...]
    do: Callable[[Link, MeasurementLog], None]


class Crew(Protocol):
    """Who measures: one device, or units of a fleet."""

    def share(self, jobs: Sequence[Job]) -> None:
        """Do all of them, each on one unit; returns when the last is done, and raises what a job raises."""


@dataclass(frozen=True)
class Alone:
    """One device, which does one job after the other."""

    link: Link
    log: MeasurementLog

    def share(self, jobs: Sequence[Job]) -> None:
        """In their order."""
        for job in jobs:
            job.do(self.link, self.log)


@dataclass(frozen=True)
class Outcome:
    """What all samples say, why measuring ended, and the last width of predictions (None: not asked for)."""

    estimation: Estimation
    ending: Ending
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
        crew: Crew,
        files: Mapping[str, ModelFile],
        models: Sequence[str],
        log: MeasurementLog,
        policy: Policy,
        seed: int,
        progress: Progress,
        prediction_width: PredictionWidth | None = None,
        further: Further | None = None,
    ):
        self._at_first = [model for model in models if model != log.header.reference_id]
        self.models = list(self._at_first)
        self.log, self.policy, self.seed = log, policy, seed
        self._progress, self._prediction_width = progress, prediction_width
        self._crew, self._files, self._further = crew, dict(files), further
        self._batch_policy = policy
        for choice in log.choices() if further else ():
            self._take(choice)

    def run(self, budget_s: float) -> Outcome:
        """Measure; the first `min_passes` are made whatever the budget says.

        Passes that only more calls are wanted of have longer batches: their loads tell little more, and take time.

        Args:
            budget_s: Seconds after which no further pass is begun.

        Raises:
            MeasurementRejectedError: one batch was rejected `max_attempts` times.
            AgentLost: the device went away and stayed away.
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

    def _chosen(self, pass_index: int, outcome: Outcome) -> bool:
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

    def _calls(self, estimation: Estimation) -> int:
        """Of the model that has fewest."""
        failed, ratios = self.log.failures(), estimation.ratios.ratios
        return min(
            ratios[model].rounds
            for model in (self.log.header.reference_id, *self.models)
            if model not in failed
        )

    def _look(self) -> Outcome:
        """Where measuring stands after a pass; the ending is `passes` where nothing is narrow yet."""
        estimation = self.log.estimation()
        if self._narrow(estimation.ratios):
            return Outcome(estimation, "narrow")
        width = self._prediction_width(estimation) if self._prediction_width else None
        narrow = width is not None and width <= self.policy.heldout_half_width
        return Outcome(estimation, "predictions" if narrow else "passes", width)

    def _narrow(self, estimates: RatioEstimates) -> bool:
        widths = [(ratio.high - ratio.low) / 2 for ratio in estimates.ratios.values()]
        return max(widths, default=0.0) <= self.policy.half_width

    def _pass(self, pass_index: int) -> None:
        groups, done = self._groups(pass_index), itertools.count(1)
        what = f"pass {pass_index + 1}: measuring"

        def job(group: int, models: list[str]) -> Job:
            def do(link: Link, log: MeasurementLog) -> None:
                self._until_kept(link, log, pass_index, group, models)
                self._progress(what, next(done), len(groups))

            return Job(tuple(models), do)

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
        self, link: Link, log: MeasurementLog, pass_index: int, group: int, models: list[str]
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
