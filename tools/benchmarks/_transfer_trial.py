"""One trial of transfer: a device whose latencies are known, others' entries, networks measured with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.accuracy import mape
from luts.estimate.calibration import predictive_quantile
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.posterior import most_useful
from luts.estimate.prior import prior_of
from luts.estimate.rows import Rows
from luts.estimate.sources import Source
from luts.format.latency import latency_ms
from luts.format.numbers import Floats
from luts.format.schema import KeyFeatures

NOISE = 0.006
COUNTS = (0, 3, 5, 10, 20)
METHODS = ("scratch", "one factor", "transfer")
TARGETS = 200
"""Networks for whose predictions the chosen ones are chosen."""


@dataclass(frozen=True)
class Networks:
    """Blocks, bytes handed on, and true milliseconds of networks."""

    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: tuple[int, ...]
    ms: Floats

    def first(self, rows: Sequence[int]) -> Networks:
        """Some of them."""
        return Networks(
            tuple(self.blocks[row] for row in rows),
            tuple(self.boundary_bytes[row] for row in rows),
            self.ms[list(rows)],
        )


@dataclass(frozen=True)
class Trial:
    """What there is to learn from and to judge by; latencies of `fitted` and `heldout` are as measured.

    `heldout_true_ms` are without noise: errors are of predictions, not of what judges them."""

    features: Mapping[str, KeyFeatures]
    sources: tuple[Source, ...]
    fitted: Networks
    heldout: Networks
    heldout_true_ms: Floats


@dataclass(frozen=True)
class Score:
    """Error and share of measured held-out networks inside the 95 % interval (None: no interval)."""

    mape: float
    coverage: float | None
    dropped: tuple[str, ...] = ()


def measured(networks: Networks, seed: int) -> Networks:
    """With the noise of a measurement."""
    noise = np.random.default_rng(seed).normal(0.0, NOISE, len(networks.ms))
    return Networks(networks.blocks, networks.boundary_bytes, networks.ms * np.exp(noise))


def chosen_order(
    features: Mapping[str, KeyFeatures], sources: Sequence[Source], candidates: Networks, count: int
) -> list[int]:
    """Candidates in the order in which they tell most under the sources' prior."""
    typical = candidates.blocks[:TARGETS]
    posterior = prior_of(features, sources, typical)
    rows = np.stack([posterior.row(blocks) for blocks in candidates.blocks])
    targets, left, order = rows[: len(typical)], list(range(len(rows))), []
    for _ in range(count):
        order.append(left.pop(most_useful(posterior, rows[left], targets)))
        posterior.learn(rows[order[-1]])
    return order


def score(trial: Trial, method: str, count: int) -> Score | None:
    """A method after the first `count` networks; None where it can say nothing yet."""
    known = trial.fitted.first(range(count))
    if count == 0 or method == "one factor":
        return _one_factor(trial, known, method)
    rows = Rows(
        known.ms,
        NOISE**2 * np.eye(count),
        known.blocks,
        np.array(known.boundary_bytes, dtype=np.float64),
    )
    fit = fit_entries(rows, trial.features, trial.sources if method == "transfer" else ())
    return _judged(trial, fit)


def _judged(trial: Trial, fit: JointFit) -> Score:
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    networks = trial.heldout
    guess = [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, blocks, handed)
        for blocks, handed in zip(networks.blocks, networks.boundary_bytes, strict=True)
    ]
    se = np.hypot(fit.relative_se(networks.blocks, networks.boundary_bytes), NOISE)
    half = predictive_quantile(fit.left_out) * se
    inside = np.abs(networks.ms / guess - 1) <= half
    return Score(mape(trial.heldout_true_ms.tolist(), guess), float(inside.mean()), tuple(fit.dropped))


def _one_factor(trial: Trial, known: Networks, method: str) -> Score | None:
    """The source that fits best, times one factor; without a measurement the sources' own mean."""
    if method == "scratch":
        return None
    errors = []
    for source in trial.sources:
        fitted, heldout = (
            np.array(
                [
                    latency_ms(source.entry_ms, source.base_ms, source.transfer_ms_per_mib, blocks, handed)
                    for blocks, handed in zip(networks.blocks, networks.boundary_bytes, strict=True)
                ]
            )
            for networks in (known, trial.heldout)
        )
        factor = float((known.ms / fitted).mean()) if len(fitted) else 1.0
        misfit = float(np.abs(known.ms / (factor * fitted) - 1).mean()) if len(fitted) else 0.0
        errors.append((misfit, mape(trial.heldout_true_ms.tolist(), (factor * heldout).tolist())))
    if not len(known.ms):
        return Score(float(np.mean([error for _, error in errors])), None)
    return Score(min(errors)[1], None)
