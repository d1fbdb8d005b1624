"""One trial of transfer: a device whose latencies are known, others' entries, networks measured with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.likelihood import FitData
from luts.estimate.sources import SourceEntries
from luts.estimate.statistics import mape, predictive_quantile
from luts.format.latency import latency_ms
from luts.format.schema import Floats, KeyFeatures
from orchestrator.plan.build import choose_design
from orchestrator.plan.sizing import NETWORKS_PER_STEP, SEED_NETWORKS

NOISE = 0.006
COUNTS = (0, 3, 5, 10, 20)
METHODS = ("scratch", "one factor", "transfer")


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

    `heldout_true_ms` and `entry_ms` are without noise: errors are of predictions, not of what judges them. True
    entries of a real device are not known."""

    features: Mapping[str, KeyFeatures]
    sources: tuple[SourceEntries, ...]
    fitted: Networks
    heldout: Networks
    heldout_true_ms: Floats
    entry_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Error, and share of measured held-out networks inside the 95 % interval, of true entries inside theirs (None:
    no interval)."""

    mape: float
    coverage: float | None
    dropped: tuple[str, ...] = ()
    entries: float | None = None


def measured(networks: Networks, seed: int) -> Networks:
    """With the noise of a measurement."""
    noise = np.random.default_rng(seed).normal(0.0, NOISE, len(networks.ms))
    return Networks(networks.blocks, networks.boundary_bytes, networks.ms * np.exp(noise))


def chosen_order(
    features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], candidates: Networks, count: int
) -> list[int]:
    """Candidates in the order in which `bench profile --from` would take them, given what it would have measured.

    The first ones are what tells most under the sources' prior, then a few at a time under that of the sources that
    fit those before. `candidates` are as measured.
    """
    order, kept = list[int](), tuple(sources)
    while len(order) < count:
        if order:
            kept = fit_entries(_rows(candidates.first(order)), features, sources).sources
        left = [place for place in range(len(candidates.blocks)) if place not in order]
        more = choose_design(
            features,
            replace(TYPICAL_DEVICE, sources=kept),
            measured=[candidates.blocks[place] for place in order],
            candidates=[candidates.blocks[place] for place in left],
            count=min(NETWORKS_PER_STEP if order else 1 + SEED_NETWORKS, count - len(order)),
        )
        order += [left[place] for place in more]
    return order


def _rows(networks: Networks) -> FitData:
    return FitData(
        networks.ms,
        NOISE**2 * np.eye(len(networks.ms)),
        networks.blocks,
        np.array(networks.boundary_bytes, dtype=np.float64),
    )


def score(trial: Trial, method: str, count: int) -> Score | None:
    """A method after the first `count` networks; None where it can say nothing yet."""
    known = trial.fitted.first(range(count))
    if count == 0 or method == "one factor":
        return _one_factor(trial, known, method)
    fit = fit_entries(_rows(known), trial.features, trial.sources if method == "transfer" else ())
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
    held = None
    if trial.entry_ms:
        true = np.array([trial.entry_ms[key] for key in fit.keys])
        held = float((np.abs(true - fit.ms) <= fit.reach * fit.se).mean())
    return Score(mape(trial.heldout_true_ms.tolist(), guess), float(inside.mean()), tuple(fit.dropped), held)


def lut_of(name: str, features: Mapping[str, KeyFeatures], networks: Networks) -> SourceEntries:
    """The source that a device's LUT from scratch is, of measured networks; standard errors and all."""
    fit = fit_entries(_rows(networks), features)
    ms, se = (dict(zip(fit.keys, values.tolist(), strict=True)) for values in (fit.ms, fit.se))
    return SourceEntries(name, ms, fit.base_ms, fit.transfer_ms_per_mib, se)


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
