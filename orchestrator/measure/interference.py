"""A self-test before the first batch: what it costs a model to follow another one, to be loaded beside others,
and to be called by a processor that is not kept busy in between.

The reference is run alone, beside as many models as a batch holds, and alone again. In company every round runs
another model once and then the reference several times, so that one round shows it after 0, 1, 2, 3 and 4 settle
runs. On a neural engine both may cost; the policy then takes more settle runs or smaller batches, and where that
does not help the measurement is refused. Where the reference is slower than with a processor that is kept
busy before every call, clocks fall between calls, and it is kept busy in the batches too; a device whose user has
switched that on although it makes calls slower is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import (
    DecisionRecord,
    InterferenceRecord,
    MeasurementRejectedError,
)
from orchestrator.measure.readiness import DeviceConnection, Schedule, run_when_ready
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLostError

VISITS = 5
"""Of the reference in a row: the last one has four settle runs before it and counts as settled."""

MOST_SETTLE_RUNS = 3

SETTLE_TOLERANCE = 0.01
"""Relative excess over the settled latency that is still settled: the width that a profile aims at."""

COMPANY_TOLERANCE = 0.03
"""Relative excess of the settled latency in company over that alone; loads of one model differ by up to 1 %."""

LEAST_RESIDENTS = 3
"""The reference twice and one model: the smallest batch."""

PHASE_S = 6.0
LEAST_ROUNDS, MOST_ROUNDS = 5, 40
"""Rounds that fit into a phase of that time, so that the test takes seconds, and well under a minute at 300 ms."""

ATTEMPTS = 2
"""Another policy, or a refusal, needs two tests that say the same: a busy moment is not the device's nature."""


@dataclass(frozen=True)
class InterferenceResult:
    """What a self-test says. Shares of the reference's latency.

    Attributes:
        after: Excess after 1, 2 and 3 settle runs over four, 0 where it is within the noise.
        beside: Excess of the settled latency, by number of resident models.
        cold: Excess without keep-warm over that with it, negative where keep-warm slows; None: not known.
        alone_ms: The reference's latency alone, the median; NaN: not known.
    """

    after: tuple[float, ...]
    beside: Mapping[int, float]
    cold: float | None = None
    alone_ms: float = math.nan

    @property
    def settle_runs(self) -> int | None:
        """The fewest that settle; None where three do not."""
        enough = (runs for runs, share in enumerate(self.after, 1) if share <= SETTLE_TOLERANCE)
        return next(enough, None)

    @property
    def residents(self) -> int | None:
        """The most that leave the reference as it is alone; None where none do."""
        enough = (count for count, share in self.beside.items() if share <= COMPANY_TOLERANCE)
        return max(enough, default=None)

    def least(self, other: InterferenceResult) -> InterferenceResult:
        """What both say."""
        counts = sorted({*self.beside, *other.beside}, reverse=True)
        shares = {
            count: [found.beside[count] for found in (self, other) if count in found.beside]
            for count in counts
        }
        return InterferenceResult(
            tuple(map(min, self.after, other.after)),
            {count: min(found) for count, found in shares.items()},
            _nearer_zero(self.cold, other.cold),
            self.alone_ms,
        )

    def describe(self) -> str:
        """One line for people."""
        after = ", ".join(f"{100 * share:+.1f} % after {runs}" for runs, share in enumerate(self.after, 1))
        beside = ", ".join(f"{100 * share:+.1f} % of {count}" for count, share in self.beside.items())
        warmth = "" if self.cold is None else f"; without keep-warm: {100 * self.cold:+.1f} %"
        return f"settle runs: {after}; in company: {beside}{warmth}"


def _nearer_zero(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    return min(one, other, key=abs) if one * other > 0 else 0.0


def excess_by_settle_runs(ns: np.ndarray) -> tuple[float, ...]:
    """Excess after 1, 2, 3 settle runs, of rounds [other, 0, 1, 2, 3, 4 settle runs], paired within rounds.

    0 where it is below two standard errors of the median (1.2533 sd / sqrt(n), sd from the median deviation).
    """
    logs = np.log(ns.astype(float))
    found = []
    for runs in range(1, MOST_SETTLE_RUNS + 1):
        differences = logs[:, 1 + runs] - logs[:, VISITS]
        middle = float(np.median(differences))
        deviation = 1.4826 * float(np.median(np.abs(differences - middle)))
        noise = 2 * 1.2533 * deviation / math.sqrt(len(differences))
        found.append(math.expm1(middle) if middle > noise else 0.0)
    return tuple(found)


def excess_co_resident(ns: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Excess of the settled latency in company over that alone before and after, less what it moved meanwhile.

    Of the faster quarter of visits: bursts of other work count less.
    """
    company, first, last = (math.log(np.quantile(part[:, VISITS], 0.25)) for part in (ns, before, after))
    return max(0.0, math.expm1(company - (first + last) / 2) - abs(last - first))


def excess_without_keep_warm(warm: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Excess of the latency before and after over that with keep-warm, less what it moved; either sign."""
    kept, first, last = (math.log(np.quantile(part[:, VISITS], 0.25)) for part in (warm, before, after))
    excess = math.expm1((first + last) / 2 - kept)
    return math.copysign(max(0.0, abs(excess) - abs(last - first)), excess)


class InterferenceTest:
    """Runs the self-test on a device; every sample goes to the log first."""

    def __init__(
        self,
        link: DeviceConnection,
        files: Mapping[str, ModelFile],
        log: MeasurementLog,
        policy: Policy,
        tell: Callable[[str], None],
    ):
        self._link, self._files, self._log, self._policy, self._tell = link, files, log, policy, tell

    def choose_policy(self, models: Sequence[str]) -> Policy:
        """The policy that this device asks for; that of the log where it was decided before.

        A test that can't be made decides nothing: what is wrong with a model shows in its batch.

        Raises:
            MeasurementRejectedError: neither settle runs nor small batches make the reference's latency its own, or
                the device is kept warm and slower for it.
        """
        decision = self._log.self_test_decision()
        if decision is None:
            others = [model for model in models if model != self._log.header.reference_id]
            if not others:
                return self._policy
            decision = self._decided(others)
            self._tell(f"self-test: {decision.reason}")
            self._log.append(decision)
        return replace(
            self._policy,
            settle_runs=decision.settle_runs,
            batch_models=decision.batch_models,
            keep_warm=decision.keep_warm,
        )

    def _decided(self, others: Sequence[str]) -> DecisionRecord:
        policy, finding = self._policy, None
        for _ in range(ATTEMPTS):
            try:
                found = self._test(others)
            except (AgentError, AgentLostError) as error:
                self._link.drop()
                return DecisionRecord(
                    settle_runs=policy.settle_runs,
                    batch_models=policy.batch_models,
                    reason=f"not decided ({error})"[:1000],
                )
            finding = found.least(finding) if finding else found
            enough = finding.settle_runs is not None and finding.settle_runs <= max(1, policy.settle_runs)
            steady = abs(finding.cold or 0.0) <= COMPANY_TOLERANCE
            if enough and steady and finding.residents == policy.batch_models + 2:
                break
        assert finding is not None
        runs, residents = finding.settle_runs, finding.residents
        if runs is not None and residents is not None:
            keep_warm = self._keeps_warm(finding)
            return DecisionRecord(
                settle_runs=max(runs, policy.settle_runs),
                batch_models=min(policy.batch_models, residents - 2),
                keep_warm=keep_warm,
                reason=finding.describe(),
            )
        raise MeasurementRejectedError(
            f"models disturb each other on {self._link.device.name} whatever the policy, as the reference of "
            f"{finding.alone_ms:.3g} ms shows ({finding.describe()}), so that a latency would not be a network's "
            "own; free the device of other work, or measure networks of other sizes than the reference's apart "
            "(bench measure and bench profile take --no-self-test)"
        )

    def _keeps_warm(self, finding: InterferenceResult) -> bool:
        """Whether batches are to keep the processor busy: where clocks fall without, and no pace wants them to."""
        cold, is_on = finding.cold or 0.0, bool(self._link.client.state().keep_warm)
        if is_on and cold < -COMPANY_TOLERANCE:
            raise MeasurementRejectedError(
                f"keeping the processor warm slows {self._link.device.name} down ({finding.describe()}); switch it "
                "off in the app (bench measure and bench profile take --no-self-test)"
            )
        return not is_on and not self._policy.pace_us and cold > COMPANY_TOLERANCE

    def _test(self, others: Sequence[str]) -> InterferenceResult:
        """Once; in batches of one model too where a whole one costs."""
        reference = self._log.header.reference_id
        subject = self._load(reference)
        paced_ns = 1e3 * self._policy.pace_us * (1 + VISITS)
        round_ns = max(paced_ns, float(self._run([subject], 1).sum()))
        rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, int(1e9 * PHASE_S / round_ns)))
        can_spin = self._link.hello().keep_warm
        off = False if can_spin else None
        alone = self._run([subject], rounds, off)
        warm = self._run([subject], rounds, True) if can_spin else None
        before, cold = alone, None
        after: tuple[float, ...] = ()
        beside: dict[int, float] = {}
        for residents in dict.fromkeys((self._policy.batch_models + 2, LEAST_RESIDENTS)):
            others_loaded = itertools.islice(itertools.cycle(others), residents - 2)
            company = [self._load(model) for model in (reference, *others_loaded)]
            ns = self._run([subject, *company], rounds, off)
            for handle in company:
                self._link.client.unload(handle)
            again = self._run([subject], rounds, off)
            if warm is not None and cold is None:
                cold = excess_without_keep_warm(warm, before, again)
            after = after or excess_by_settle_runs(ns)
            beside[residents] = excess_co_resident(ns, alone, again)
            if beside[residents] <= COMPANY_TOLERANCE:
                break
            alone = again
        self._link.client.unload(subject)
        return InterferenceResult(after, beside, cold, float(np.median(before[:, VISITS])) / 1e6)

    def _load(self, model: str) -> int:
        return self._link.load(self._files[model]).handle

    def _run(self, handles: Sequence[int], rounds: int, keep_warm: bool | None = None) -> np.ndarray:
        """Nanoseconds [rounds, 1 + VISITS]: another model, or the first where it is alone, then that one again and
        again."""
        order = [
            [1 + i % (len(handles) - 1) if len(handles) > 1 else 0, *[0] * VISITS] for i in range(rounds)
        ]
        policy = self._policy
        schedule = Schedule(handles, order, policy.warmup, policy.warmup_ms, policy.pace_us, keep_warm)
        result = run_when_ready(self._link, schedule, self._tell)
        self._log.append(
            InterferenceRecord(residents=len(handles), order=order, ns=result.samples, keep_warm=keep_warm)
        )
        return result.samples
