"""One trial of transfer: a device of known latencies, entries of other devices, networks measured with noise."""

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
    """Blocks, bytes between blocks, and milliseconds of networks."""

    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: tuple[int, ...]
    ms: Floats

    def first(self, rows: Sequence[int]) -> Networks:
        """Return the networks at these positions."""
        return Networks(
            tuple(self.blocks[row] for row in rows),
            tuple(self.boundary_bytes[row] for row in rows),
            self.ms[list(rows)],
        )


@dataclass(frozen=True)
class Trial:
    """Measured networks to learn from and to evaluate on.

    Attributes:
        features: Features of all keys.
        sources: Entries of other devices.
        fitted: Networks to learn from, as measured.
        heldout: Networks to evaluate on, as measured.
        heldout_true_ms: Their latencies without noise.
        entry_ms: True entries; empty for a real device, whose entries are unknown.
    """

    features: Mapping[str, KeyFeatures]
    sources: tuple[SourceEntries, ...]
    fitted: Networks
    heldout: Networks
    heldout_true_ms: Floats
    entry_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Errors on the held-out networks.

    Attributes:
        mape: Mean absolute relative error.
        coverage: Fraction of measured networks inside their 95 % interval; None without intervals.
        dropped: Sources that the fit rejected.
        entries: Fraction of true entries inside their 95 % interval.
    """

    mape: float
    coverage: float | None
    dropped: tuple[str, ...] = ()
    entries: float | None = None


def measured(networks: Networks, seed: int) -> Networks:
    """Return the networks with the noise of a measurement."""
    noise = np.random.default_rng(seed).normal(0.0, NOISE, len(networks.ms))
    return Networks(networks.blocks, networks.boundary_bytes, networks.ms * np.exp(noise))


def chosen_order(
    features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], candidates: Networks, count: int
) -> list[int]:
    """Return candidates in the order in which `bench profile --from` would measure them.

    The first ones are the most informative under the sources' prior, the following ones, a few at a time, under the
    prior of the sources that fit those before.
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
    """Return a method's errors after the first `count` networks; None where it cannot predict yet."""
    known = trial.fitted.first(range(count))
    if method == "one factor" or (count == 0 and method == "transfer"):
        return one_factor(trial.sources, known, trial.heldout, trial.heldout_true_ms)
    if count == 0:
        return None
    fit = fit_entries(_rows(known), trial.features, trial.sources if method == "transfer" else ())
    networks = trial.heldout
    predicted = predicted_ms(entries_of(method, fit), networks)
    se = np.hypot(fit.relative_se(networks.blocks, networks.boundary_bytes), NOISE)
    inside = np.abs(networks.ms / predicted - 1) <= predictive_quantile(fit.left_out) * se
    entries = None
    if trial.entry_ms:
        true = np.array([trial.entry_ms[key] for key in fit.keys])
        entries = float((np.abs(true - fit.ms) <= fit.reach * fit.se).mean())
    error = mape(trial.heldout_true_ms.tolist(), predicted.tolist())
    return Score(error, float(inside.mean()), tuple(fit.dropped), entries)


def lut_of(name: str, features: Mapping[str, KeyFeatures], networks: Networks) -> SourceEntries:
    """Return a device's LUT from scratch, of measured networks, as a source."""
    return entries_of(name, fit_entries(_rows(networks), features))


def one_factor(
    sources: Sequence[SourceEntries], known: Networks, heldout: Networks, true_ms: Floats
) -> Score:
    """Return the errors of the source that fits best, times one factor; the mean of all sources for no network."""
    errors = []
    for source in sources:
        fitted, predicted = predicted_ms(source, known), predicted_ms(source, heldout)
        factor = float((known.ms / fitted).mean()) if len(fitted) else 1.0
        misfit = float(np.abs(known.ms / (factor * fitted) - 1).mean()) if len(fitted) else 0.0
        errors.append((misfit, mape(true_ms.tolist(), (factor * predicted).tolist())))
    if not len(known.ms):
        return Score(float(np.mean([error for _, error in errors])), None)
    return Score(min(errors)[1], None)


def predicted_ms(costs: SourceEntries, networks: Networks) -> Floats:
    """Return the latencies of networks by a device's entries."""
    return np.array(
        [
            latency_ms(costs.entry_ms, costs.base_ms, costs.transfer_ms_per_mib, blocks, handed)
            for blocks, handed in zip(networks.blocks, networks.boundary_bytes, strict=True)
        ]
    )


def entries_of(name: str, fit: JointFit) -> SourceEntries:
    """Return a fit's entries with standard errors as a source."""
    ms, se = (dict(zip(fit.keys, values.tolist(), strict=True)) for values in (fit.ms, fit.se))
    return SourceEntries(name, ms, fit.base_ms, fit.transfer_ms_per_mib, se)


def score_row(scores: Sequence[Score]) -> dict[str, object]:
    """Return the means over draws in percent, and how often a shuffled source was rejected."""
    row: dict[str, object] = {"MAPE": 100 * float(np.mean([one.mape for one in scores]))}
    for name in ("coverage", "entries"):
        values = [value for one in scores if (value := getattr(one, name)) is not None]
        row[name] = 100 * float(np.mean(values)) if values else None
    return row | {"rejected": 100 * float(np.mean(["shuffled" in one.dropped for one in scores]))}
