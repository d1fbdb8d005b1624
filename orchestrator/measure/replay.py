"""The journal of a bundle as a measurement: judged like the batches of a live run, by the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, first_problem
from orchestrator.bundle.archive import AgentRules, LoadFields, RunFields, Script, ScriptBatch, StoppingRule
from orchestrator.bundle.journal import (
    AgentStart,
    BatchEnd,
    BatchStart,
    BundleEnd,
    BundleRecord,
    LoadRecord,
    ModelFailure,
    RunRecord,
)
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import HOT_HEADROOM, clock_cap_change
from orchestrator.journal.log import MeasurementLog, placements
from orchestrator.journal.records import (
    BatchRecord,
    FailureRecord,
    MeasurementRejectedError,
    PlacementRecord,
    RoundsRecord,
)
from orchestrator.measure.batches import close_batch, load_order, pass_groups, round_orders
from orchestrator.measure.engine import EngineResult, ModelSet
from orchestrator.measure.readiness import COOL_HEADROOM, ReferenceFailedError
from orchestrator.measure.session import (
    Measurement,
    check_runtime,
    make_header,
    make_identity,
    make_measurement,
)
from orchestrator.plan.plan import Policy
from orchestrator.wire.messages import HelloReply, LoadReply


def make_script(
    subject: ModelSet,
    variant: Variant,
    policy: Policy,
    budget_s: float,
    *,
    poll_s: float = 10.0,
    wait_s: float = 900.0,
) -> Script:
    """Return the script of everything that a policy may need, with the rules for stopping earlier.

    No pass starts after `budget_s`. A device that is not ready is checked every `poll_s`, for at most
    `wait_s`.
    """
    digests = {name: file.sha256 for name, file in subject.files.items()}
    reference = digests[subject.reference_id]
    others = [name for name in subject.files if name != subject.reference_id]
    batches: list[ScriptBatch] = []
    for pass_index in range(policy.max_passes):
        groups = pass_groups(others, subject.seed, pass_index, policy.batch_models)
        for group, models in enumerate(groups):
            slots, number = [reference, reference, *(digests[name] for name in models)], len(batches)
            batches.append(
                ScriptBatch(
                    pass_index=pass_index,
                    group=group,
                    slots=slots,
                    loading=load_order(len(slots), subject.seed, number, 0),
                    orders=[
                        round_orders(
                            len(slots),
                            subject.seed,
                            number,
                            first,
                            min(policy.chunk_rounds, policy.max_rounds - first),
                            policy.settle_runs,
                        )
                        for first in range(0, policy.max_rounds, policy.chunk_rounds)
                    ],
                    placement=pass_index == 0,
                )
            )
    return Script(
        rules=AgentRules(
            attempts=policy.max_attempts,
            poll_s=poll_s,
            wait_s=wait_s,
            hot_headroom=HOT_HEADROOM,
            cool_headroom=COOL_HEADROOM,
        ),
        load=LoadFields(runtime=variant.runtime, options=variant.load_options),
        run=RunFields(warmup=policy.warmup, warmup_ms=policy.warmup_ms, pace_us=policy.pace_us),
        batches=batches,
        stop=StoppingRule(
            min_rounds=policy.min_rounds,
            load_se=policy.load_se,
            min_passes=policy.min_passes,
            half_width=policy.half_width,
            budget_s=budget_s,
        ),
    )


FEWEST_LOADS = 2
"""Fewest loads of a model for a spread; a model with fewer is excluded, like one that the device refuses."""


@dataclass
class _Attempt:
    """One start of a batch."""

    start: BatchStart
    loads: list[tuple[LoadRecord, LoadReply]] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    ended: str = "the agent was ended in it"


@dataclass(frozen=True)
class Replay:
    """Copies a bundle's batches into a measurement log, and judges each.

    The records must be of one device that can run the variant: otherwise MeasurementRejectedError or UsageError is
    raised. The device's name and the path of the bundle's journal are for messages.
    """

    name: str
    path: Path
    records: Sequence[BundleRecord]
    subject: ModelSet
    variant: Variant
    policy: Policy

    def __post_init__(self) -> None:
        """Check the records."""
        check_runtime(self.name, self.hello, self.variant)

    @cached_property
    def hello(self) -> HelloReply:
        """The device's first hello; raises MeasurementRejectedError if a later one differs in device or version."""
        try:
            hellos = [record.reply() for record in self.records if isinstance(record, AgentStart)]
        except ValidationError as error:
            raise self._invalid(first_problem(error)) from None
        if not hellos:
            raise MeasurementRejectedError(
                f"{self.path} has no measurement yet; run the bundle again to resume", code="no_samples"
            )
        if any(self.variant.runtime not in hello.runtimes for hello in hellos):
            check_runtime(self.name, hellos[0], self.variant)
        first, *others = (
            make_identity(hello, self.variant, self.subject, self.policy, False) for hello in hellos
        )
        changed = [line for other in others for line in first.differences(other)]
        if changed:
            raise MeasurementRejectedError(
                f"{self.path} has samples of different conditions: {'; '.join(changed[:3])}; run the bundle "
                "again with another journal",
                code="conditions_changed",
            )
        return hellos[0]

    @cached_property
    def _model_of(self) -> dict[str, str]:
        return {file.sha256: model for model, file in self.subject.files.items()}

    def measure(self, journal: Path, created: str) -> Measurement:
        """Return the measurement; its records are written to a new log with the time stamp `created`.

        Raises:
            InvalidArtifactError: A reply is invalid, or a model is not in the plan.
            ReferenceFailedError: The device refused the reference.
            MeasurementRejectedError: Too few batches count.
        """
        header = make_header(self.hello, self.variant, self.subject, self.policy, False, created)
        with MeasurementLog(journal, header) as log:
            for record in self.records:
                if isinstance(record, ModelFailure):
                    self._note_failure(log, self._model(record.sha256), record.reason)
            for attempt in self._attempts():
                self._take_in(log, attempt)
            self._leave_out_rare(log)
            last = self.records[-1]
            ending = last.ended if isinstance(last, BundleEnd) else "passes"
            return make_measurement(self.hello, log, EngineResult(log.estimation(), ending))

    def _attempts(self) -> Iterator[_Attempt]:
        attempt: _Attempt | None = None
        for record in self.records:
            if isinstance(record, BatchStart | BatchEnd | AgentStart) and attempt is not None:
                if isinstance(record, BatchEnd):
                    attempt.ended = "" if record.ended == "done" else record.ended
                yield attempt
                attempt = None
            if isinstance(record, BatchStart):
                attempt = _Attempt(record)
            elif isinstance(record, LoadRecord) and attempt is not None:
                self._load(attempt, record)
            elif isinstance(record, RunRecord) and attempt is not None:
                attempt.runs.append(record)
        if attempt is not None:
            yield attempt

    def _load(self, attempt: _Attempt, record: LoadRecord) -> None:
        try:
            reply = record.result()
        except ValidationError as error:
            raise self._invalid(first_problem(error)) from None
        if isinstance(reply, LoadReply):
            attempt.loads.append((record, reply))

    def _take_in(self, log: MeasurementLog, attempt: _Attempt) -> None:
        loads = sorted(attempt.loads, key=lambda load: load[0].slot)
        slots = [record.slot for record, _ in loads]
        models = [self._model(record.sha256) for record, _ in loads]
        if (
            slots[:2] != [0, 1]
            or models[:2] != [self.subject.reference_id] * 2
            or len(set(slots)) < len(slots)
        ):
            return
        replies = [reply for _, reply in loads]
        self._note_placements(log, models, replies)
        batch = BatchRecord(
            batch=log.next_batch(),
            segment=0,
            pass_index=attempt.start.pass_index,
            group=attempt.start.group,
            attempt=0,
            slots=models,
            copies=[0, 1] + [0] * (len(models) - 2),
            load_ns=[],
        ).with_loads(replies)
        log.append(batch)
        for run in attempt.runs:
            self._run(log, batch, slots, run)
        few = (
            f"only {log.rounds(batch.batch)} rounds"
            if log.rounds(batch.batch) < self.policy.min_rounds
            else ""
        )
        moved = log.rejected_runs(batch.batch) and few
        close_batch(log, batch.batch, attempt.ended or ("a clock's cap moved" if moved else few))

    def _run(self, log: MeasurementLog, batch: BatchRecord, slots: Sequence[int], run: RunRecord) -> None:
        try:
            result = run.result()
            order = [[slots.index(slot) for slot in calls] for calls in run.order]
        except ValueError as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise self._invalid(problem) from None
        rejected = clock_cap_change(result.state_before, result.state_after)
        first_round, settle_runs = log.rounds(batch.batch), self.policy.settle_runs
        log.append(RoundsRecord.from_run(batch, first_round, settle_runs, order, result, rejected))

    def _note_placements(
        self, log: MeasurementLog, models: Sequence[str], replies: Sequence[LoadReply]
    ) -> None:
        for model, reply in zip(models, replies, strict=True):
            record = PlacementRecord.of(model, reply.placement)
            if record is not None and model not in placements(log.records):
                log.append(record)

    def _note_failure(self, log: MeasurementLog, model: str, reason: str) -> None:
        if model == self.subject.reference_id:
            raise ReferenceFailedError(self.name, reason)
        log.append(FailureRecord(model=model, reason=reason))

    def _leave_out_rare(self, log: MeasurementLog) -> None:
        """Exclude models with too few valid loads; raises MeasurementRejectedError if most batches do not count."""
        ends, kept = log.ends(), Counter[str]()
        for batch in log.batches().values():
            if ends[batch.batch].kept:
                kept.update(set(batch.slots))
        verdicts = [end.kept for end in ends.values()]
        if 2 * sum(verdicts) < len(verdicts) or kept[self.subject.reference_id] < FEWEST_LOADS:
            last = next((end.reason for end in reversed(ends.values()) if not end.kept), "none was finished")
            raise MeasurementRejectedError(
                f"{self.path}: {len(verdicts) - sum(verdicts)} of {len(verdicts)} batches do not count, last "
                f"because {last}; let the device idle or cool and run the bundle again with another journal",
                code="batch_rejected",
            )
        for model in self.subject.files:
            if kept[model] < FEWEST_LOADS and model not in log.failures():
                loads = "no load of it counts" if not kept[model] else "one load of it counts"
                log.append(
                    FailureRecord(model=model, reason=f"{loads}: the device refused it, or was too warm")
                )

    def _model(self, digest: str) -> str:
        if digest not in self._model_of:
            raise self._invalid(f"the model {digest[:12]} is not in its plan")
        return self._model_of[digest]

    def _invalid(self, problem: str) -> InvalidArtifactError:
        return InvalidArtifactError(
            f"{self.path}: no agent wrote this ({problem}); use the file as the agent left it",
            code="invalid_journal",
        )
