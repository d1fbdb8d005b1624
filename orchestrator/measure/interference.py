"""Interference self-test: what preceding and co-resident models, and an idle processor, cost a model.

Runs before the first batch. The reference is run alone, next to as many models as a batch has, and alone again.
Between the two, every round calls another model once and then the reference several times, so that one round shows
the reference after 0, 1, 2, 3 and 4 settle runs. On a neural engine both may cost time; the policy then takes more
settle runs or smaller batches, and if that does not help, the measurement is refused. If the reference is slower
than with a processor that is kept busy before every call, clocks fall between calls, and batches keep it busy too.
A device whose user has switched keep-warm on although it slows calls down is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.journal.log import MeasurementLog, self_test_decision
from orchestrator.journal.records import (
    DecisionRecord,
    InterferenceRecord,
    MeasurementRejectedError,
)
from orchestrator.measure.readiness import CallSchedule, DeviceConnection, run_when_ready
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLostError

REFERENCE_CALLS = 5
"""Calls of the reference in a row: the last one has four settle runs before it and counts as settled."""

MAX_SETTLE_RUNS = 3

SETTLE_TOLERANCE = 0.01
"""Relative excess over the settled latency that still counts as settled: the precision that a profile aims at."""

RESIDENT_TOLERANCE = 0.03
"""Relative excess of the settled latency among other models over that alone; loads of one model differ by up
to 1 %.
"""

MIN_RESIDENTS = 3
"""The smallest batch: the reference twice and one model."""

PHASE_S = 6.0
MIN_ROUNDS, MAX_ROUNDS = 5, 40
"""Bounds of the rounds that fit into `PHASE_S` seconds, so that the test takes seconds, and well under a
minute at 300 ms.
"""

ATTEMPTS = 2
"""A changed policy, or a refusal, needs two tests that agree: one busy moment is not the device's nature."""


@dataclass(frozen=True)
class InterferenceResult:
    """Result of a self-test, relative to the reference's latency.

    Attributes:
        settle_excess: Excess after 1, 2 and 3 settle runs over four; 0 if within the noise.
        resident_excess: Excess of the settled latency, by number of loaded models.
        cold_excess: Excess without keep-warm over that with it, negative if keep-warm slows calls down; None:
            unknown.
        alone_ms: Median latency of the reference alone; NaN: unknown.
    """

    settle_excess: tuple[float, ...]
    resident_excess: Mapping[int, float]
    cold_excess: float | None = None
    alone_ms: float = math.nan

    @property
    def settle_runs(self) -> int | None:
        """Fewest settle runs that are enough; None if three are not."""
        enough = (runs for runs, share in enumerate(self.settle_excess, 1) if share <= SETTLE_TOLERANCE)
        return next(enough, None)

    @property
    def residents(self) -> int | None:
        """Most loaded models that do not slow the reference down; None if even the fewest do."""
        enough = (count for count, share in self.resident_excess.items() if share <= RESIDENT_TOLERANCE)
        return max(enough, default=None)

    def combine(self, other: InterferenceResult) -> InterferenceResult:
        """Return what both results agree on: the smaller of each excess."""
        counts = sorted({*self.resident_excess, *other.resident_excess}, reverse=True)
        shares = {
            count: [found.resident_excess[count] for found in (self, other) if count in found.resident_excess]
            for count in counts
        }
        return InterferenceResult(
            tuple(map(min, self.settle_excess, other.settle_excess)),
            {count: min(found) for count, found in shares.items()},
            _nearer_zero(self.cold_excess, other.cold_excess),
            self.alone_ms,
        )

    def describe(self) -> str:
        """Return the result in one line."""
        after = ", ".join(f"{100 * x:+.1f} % after {runs}" for runs, x in enumerate(self.settle_excess, 1))
        residents = ", ".join(
            f"{100 * share:+.1f} % of {count}" for count, share in self.resident_excess.items()
        )
        warmth = "" if self.cold_excess is None else f"; without keep-warm: {100 * self.cold_excess:+.1f} %"
        return f"settle runs: {after}; loaded models: {residents}{warmth}"


def _nearer_zero(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    return min(one, other, key=abs) if one * other > 0 else 0.0


def excess_by_settle_runs(ns: np.ndarray) -> tuple[float, ...]:
    """Return the relative excess after 1, 2 and 3 settle runs over four, paired within rounds.

    It is 0 if below two standard errors of the median (1.2533 sd / sqrt(n), with sd from the median deviation).

    Args:
        ns: Nanoseconds [rounds, calls] of rounds (other model, then the reference after 0, 1, 2, 3, 4 settle runs).
    """
    logs = np.log(ns.astype(float))
    found = []
    for runs in range(1, MAX_SETTLE_RUNS + 1):
        differences = logs[:, 1 + runs] - logs[:, REFERENCE_CALLS]
        middle = float(np.median(differences))
        deviation = 1.4826 * float(np.median(np.abs(differences - middle)))
        noise = 2 * 1.2533 * deviation / math.sqrt(len(differences))
        found.append(math.expm1(middle) if middle > noise else 0.0)
    return tuple(found)


def excess_co_resident(ns: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Return the relative excess of the settled latency among other models over that alone, less the drift.

    The faster quarter of calls is compared: bursts of other work count less. All are nanoseconds [rounds,
    calls]; `before` and `after` are alone.
    """
    others, first, last = _settled_logs(ns, before, after)
    return max(0.0, math.expm1(others - (first + last) / 2) - abs(last - first))


def _settled_logs(*parts: np.ndarray) -> list[float]:
    return [math.log(np.quantile(part[:, REFERENCE_CALLS], 0.25)) for part in parts]


def excess_without_keep_warm(warm: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Return the relative excess of the latency before and after over that with keep-warm, less the drift."""
    kept_warm, first, last = _settled_logs(warm, before, after)
    excess = math.expm1((first + last) / 2 - kept_warm)
    return math.copysign(max(0.0, abs(excess) - abs(last - first)), excess)


@dataclass(frozen=True)
class InterferenceTest:
    """Runs the self-test on a device; every sample goes to the log first, the result to `notify`."""

    connection: DeviceConnection
    files: Mapping[str, ModelFile]
    log: MeasurementLog
    policy: Policy
    notify: Callable[[str], None]

    def choose_policy(self, models: Sequence[str]) -> Policy:
        """Return the policy for this device; that of the log if the test was made before.

        A test that fails decides nothing: a faulty model shows in its batch. The reference is among `models`.

        Raises:
            MeasurementRejectedError: Neither settle runs nor small batches remove the interference, or the user
                has switched keep-warm on and it slows calls down.
        """
        decision = self_test_decision(self.log.records)
        if decision is None:
            others = [model for model in models if model != self.log.header.reference_id]
            if not others:
                return self.policy
            decision = self._decide(others)
            self.notify(f"self-test: {decision.reason}")
            self.log.append(decision)
        return replace(
            self.policy,
            settle_runs=decision.settle_runs,
            batch_models=decision.batch_models,
            keep_warm=decision.keep_warm,
        )

    def _decide(self, others: Sequence[str]) -> DecisionRecord:
        policy, finding = self.policy, None
        for _ in range(ATTEMPTS):
            try:
                found = self._run_test(others)
            except (AgentError, AgentLostError) as error:
                self.connection.drop()
                return DecisionRecord(
                    settle_runs=policy.settle_runs,
                    batch_models=policy.batch_models,
                    reason=f"not decided ({error})"[:1000],
                )
            finding = found.combine(finding) if finding else found
            enough = finding.settle_runs is not None and finding.settle_runs <= max(1, policy.settle_runs)
            steady = abs(finding.cold_excess or 0.0) <= RESIDENT_TOLERANCE
            if enough and steady and finding.residents == policy.batch_models + 2:
                break
        assert finding is not None
        runs, residents = finding.settle_runs, finding.residents
        if runs is not None and residents is not None:
            keep_warm = self._needs_keep_warm(finding)
            return DecisionRecord(
                settle_runs=max(runs, policy.settle_runs),
                batch_models=min(policy.batch_models, residents - 2),
                keep_warm=keep_warm,
                reason=finding.describe(),
            )
        raise MeasurementRejectedError(
            f"models interfere with each other on {self.connection.device.name} even with the most conservative "
            f"settings (reference {finding.alone_ms:.3g} ms: {finding.describe()}); stop other work, or measure "
            "networks of very different size in separate runs (--no-self-test skips this test)",
            code="interference",
        )

    def _needs_keep_warm(self, finding: InterferenceResult) -> bool:
        """Return whether batches must keep the processor busy: clocks fall otherwise, and without --pace."""
        cold, is_on = finding.cold_excess or 0.0, bool(self.connection.client.state().keep_warm)
        if is_on and cold < -RESIDENT_TOLERANCE:
            raise MeasurementRejectedError(
                f"keep-warm slows {self.connection.device.name} down ({finding.describe()}); switch it off in "
                "the app (--no-self-test skips this test)",
                code="keep_warm_slows",
            )
        return not is_on and not self.policy.pace_us and cold > RESIDENT_TOLERANCE

    def _run_test(self, others: Sequence[str]) -> InterferenceResult:
        """Run the test once; in batches of one model too if a whole batch interferes."""
        reference = self.log.header.reference_id
        subject = self._load(reference)
        paced_ns = 1e3 * self.policy.pace_us * (1 + REFERENCE_CALLS)
        round_ns = max(paced_ns, float(self._run([subject], 1).sum()))
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(1e9 * PHASE_S / round_ns)))
        can_spin = self.connection.hello().keep_warm
        off = False if can_spin else None
        alone = self._run([subject], rounds, off)
        warm = self._run([subject], rounds, True) if can_spin else None
        before, cold = alone, None
        after: tuple[float, ...] = ()
        excesses: dict[int, float] = {}
        for residents in dict.fromkeys((self.policy.batch_models + 2, MIN_RESIDENTS)):
            others_loaded = itertools.islice(itertools.cycle(others), residents - 2)
            others_handles = [self._load(model) for model in (reference, *others_loaded)]
            ns = self._run([subject, *others_handles], rounds, off)
            for handle in others_handles:
                self.connection.client.unload(handle)
            again = self._run([subject], rounds, off)
            if warm is not None and cold is None:
                cold = excess_without_keep_warm(warm, before, again)
            after = after or excess_by_settle_runs(ns)
            excesses[residents] = excess_co_resident(ns, alone, again)
            if excesses[residents] <= RESIDENT_TOLERANCE:
                break
            alone = again
        self.connection.client.unload(subject)
        return InterferenceResult(after, excesses, cold, float(np.median(before[:, REFERENCE_CALLS])) / 1e6)

    def _load(self, model: str) -> int:
        return self.connection.load(self.files[model]).handle

    def _run(self, handles: Sequence[int], rounds: int, keep_warm: bool | None = None) -> np.ndarray:
        """Return nanoseconds [rounds, 1 + REFERENCE_CALLS]: another model (or the first), then the reference."""
        order = [
            [1 + i % (len(handles) - 1) if len(handles) > 1 else 0, *[0] * REFERENCE_CALLS]
            for i in range(rounds)
        ]
        policy = self.policy
        schedule = CallSchedule(handles, order, policy.warmup, policy.warmup_ms, policy.pace_us, keep_warm)
        result = run_when_ready(self.connection, schedule, self.notify)
        self.log.append(
            InterferenceRecord(residents=len(handles), order=order, ns=result.samples, keep_warm=keep_warm)
        )
        return result.samples
