"""One trial of transfer on a variant's measured networks, divided into what is fitted and what judges."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.build import build_lut, estimates_of, fit_measured
from luts.estimate.design import most_informative, prior_from_sources
from luts.estimate.joint import JointFit
from luts.estimate.ratios import RatioEstimates
from luts.estimate.sources import SourceEntries, source_from_lut
from luts.estimate.statistics import mape
from luts.format.latency import latency_ms
from luts.format.lut import Lut
from luts.format.schema import KeyFeatures, LutInputs, MeasuredModel, ModelSpec
from tools.benchmarks._transfer_trial import COUNTS, Score

JUDGED = 0.5
"""Of the random networks; the others are fitted, calibrate, and are in the sources' own LUTs."""

CALIBRATE_EACH = 3
"""As `bench lut adapt` does, one network beside so many that are fitted is held out and calibrates intervals."""


@dataclass(frozen=True)
class Measured:
    """Networks of a variant: `first` is the reference, `pool` may be fitted, `judged` never are."""

    estimates: RatioEstimates
    features: Mapping[str, KeyFeatures]
    first: MeasuredModel
    pool: tuple[MeasuredModel, ...]
    calibrating: tuple[MeasuredModel, ...]
    judged: tuple[MeasuredModel, ...]


def divided(lut: Lut, seed: int) -> Measured:
    """A variant's networks, its random ones divided by a seed; equal seeds divide all variants alike."""
    heldout = sorted((model for model in lut.models if model.split == "heldout"), key=lambda m: m.model_id)
    random.Random(f"divide:{seed}").shuffle(heldout)
    judged = int(JUDGED * len(heldout))
    spare = max(COUNTS) // CALIBRATE_EACH
    design = [model for model in lut.models if model.role == "design"]
    return Measured(
        estimates_of(lut).ratios,
        {entry.key: entry.features for entry in lut.entries},
        lut.reference,
        (*heldout[judged + spare :], *design),
        tuple(heldout[judged : judged + spare]),
        tuple(heldout[:judged]),
    )


def as_source(name: str, lut: Lut, seed: int) -> SourceEntries:
    """A variant's LUT of all but the networks that judge, as `--from` reads it."""
    judged = {model.model_id for model in divided(lut, seed).judged}
    specs = [_fitted(model) for model in lut.models if model.model_id not in judged]
    features = {entry.key: entry.features for entry in lut.entries}
    kept = build_lut(
        LutInputs.of(lut.meta),
        [ModelSpec.of(spec) for spec in specs],
        estimates_of(lut).without(judged),
        features,
    )
    return source_from_lut(name, kept)


def order_of(
    measured: Measured, sources: Sequence[SourceEntries], chosen: bool, seed: int
) -> list[MeasuredModel]:
    """The reference, then the others: at random, or each where it tells most under the sources' prior."""
    pool = list(measured.pool)
    if not chosen:
        random_ones = [model for model in pool if model.split == "heldout"]
        random.Random(f"order:{seed}").shuffle(random_ones)
        return [measured.first, *random_ones]
    typical = [model.blocks for model in (*measured.pool, *measured.calibrating) if model.split == "heldout"]
    posterior = prior_from_sources(measured.features, sources, typical)
    targets = np.stack([posterior.row(blocks) for blocks in typical])
    ordered = [measured.first]
    while pool and len(ordered) < max(COUNTS):
        posterior.learn(posterior.row(ordered[-1].blocks))
        rows = np.stack([posterior.row(model.blocks) for model in pool])
        ordered.append(pool.pop(most_informative(posterior, rows, targets)))
    return ordered


def score(
    measured: Measured, ordered: Sequence[MeasuredModel], sources: Sequence[SourceEntries], method: str
) -> Score:
    """A method after the networks in `ordered`, of which there is at least one."""
    if method == "one factor":
        return one_factor(measured, ordered, sources)
    held = measured.calibrating[: max(1, len(ordered) // CALIBRATE_EACH)]
    fit = fit_measured(
        [*map(_fitted, ordered), *held],
        measured.estimates,
        measured.features,
        sources if method == "transfer" else (),
    )
    half = fit.half_width(held, _predicted(fit, held), noise(measured, held))
    guess = _predicted(fit, measured.judged)
    truth = [model.ms for model in measured.judged]
    inside = [abs(ms / at - 1) <= (half or 0.0) for ms, at in zip(truth, guess, strict=True)]
    return Score(mape(truth, guess), float(np.mean(inside)), tuple(fit.dropped))


def _fitted(model: MeasuredModel) -> MeasuredModel:
    return model if model.split == "fit" else model.model_copy(update={"split": "fit", "role": "design"})


def _predicted(fit: JointFit, models: Sequence[MeasuredModel]) -> list[float]:
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    return [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, model.blocks, model.boundary_bytes)
        for model in models
    ]


def noise(measured: Measured, models: Sequence[MeasuredModel]) -> list[float]:
    """Relative standard errors of their measurements."""
    return [measured.estimates.ratios[model.model_id].se for model in models]


def one_factor(
    measured: Measured, ordered: Sequence[MeasuredModel], sources: Sequence[SourceEntries]
) -> Score:
    """The source that fits best, times one factor; without a network the mean error of all as they are."""
    truth = [model.ms for model in measured.judged]
    errors = []
    for source in sources:
        seen, asked = (
            np.array([_by_source(source, model) for model in models]) for models in (ordered, measured.judged)
        )
        ms = np.array([model.ms for model in ordered])
        factor = float((ms / seen).mean()) if len(ordered) else 1.0
        misfit = float(np.abs(ms / (factor * seen) - 1).mean()) if len(ordered) else 0.0
        errors.append((misfit, mape(truth, (factor * asked).tolist())))
    return Score(min(errors)[1] if len(ordered) else float(np.mean([error for _, error in errors])), None)


def _by_source(source: SourceEntries, model: MeasuredModel) -> float:
    return latency_ms(
        source.entry_ms, source.base_ms, source.transfer_ms_per_mib, model.blocks, model.boundary_bytes
    )
