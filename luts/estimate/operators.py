"""The fit of a LUT of operators: latencies of whole programs, or of single operators, as sums of operators.

The model is `luts.format.operator_latency`'s; here its values are learned. What deviations are likely, and how far
intervals reach, is estimated as in the joint fit (`likelihood.VarianceComponents`, `statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from luts.estimate.likelihood import ENTRY, KIND, MISFIT, SHARED, VarianceComponents
from luts.estimate.sources import KEEP_LOG, SourceEntries
from luts.estimate.statistics import CONFIDENCE, conformal_quantile, predictive_quantile
from luts.format.errors import InvalidArtifactError
from luts.format.operator_latency import SD_FLOOR, TILED, OperatorModel, OperatorSource, rows_of
from luts.format.operators import parse_operator
from luts.format.schema import Floats, MeasuredModel, OperatorFit

_CENTRE = np.log([0.05, 0.03, 0.7, 0.3])
_SD = np.array([0.7, 0.7, 0.3, 0.5])
"""Weak priors of the learned deviations of logarithms. In a trial with 225 programs on x86 single operators
strayed 5 % from others alike, programs 3 % from sums, and operators 30 % from physics together."""
_CENTRE_WITH_SOURCES = np.log([0.05, 0.03, 0.2, 0.15])
"""As `_CENTRE`, from other devices' prices."""

ROWS, COLUMNS = (1, 4, 5, 6, 7, 8, 14), (1, 4, 8, 16, 32, 64)
"""Tiles to choose from: XNNPACK's fp32 and int8 kernels of Arm and x86 are among them."""
FIRST_TILE = (1, 16)
TILE_PROGRAMS = 8
"""A kind in fewer programs keeps `FIRST_TILE`."""

FOLDS = 8
STEPS, NEARLY_CONVERGED, CONVERGED, SMALLEST_STEP = 60, 1e-4, 1e-9, 0.02
"""Last changes of logarithms, for what is refined later or has errors of percents, and for what a LUT stores."""
ANNEALED_SD, ANNEALING = 0.4, 0.6
"""The rows' error starts at 40 % and shrinks by this factor a step, else the first steps overshoot."""
WITHIN = 0.10
"""A prediction counts as extrapolated where networks as uncertain mostly missed this."""


def solve_rows(model: OperatorModel, converged: float = NEARLY_CONVERGED) -> OperatorModel:
    """Return the model at its most probable deviations: Gauss-Newton with line search.

    It starts at physics and solves for m rows instead of k operators: deviations are the prior covariance times
    weights (k,), and their penalty is the product of both. `converged` is the largest change in the last step.
    """
    model, weights = (
        replace(model, deviations=np.zeros(len(model.deviations))),
        np.zeros(len(model.deviations)),
    )
    for step in range(STEPS):
        error = max(float(model.sds[MISFIT]), ANNEALED_SD * ANNEALING**step)
        variance = model.variance + error**2
        covariance = model.by_entry @ model.to_rows + np.diag(variance)
        pull = np.linalg.solve(covariance, model.residual)
        aim, target = model.by_entry.T @ pull, model.to_rows @ pull
        size, before = 1.0, _objective(model, weights, variance)
        while True:
            toward = weights + size * (aim - weights)
            trial = replace(model, deviations=model.deviations + size * (target - model.deviations))
            if size < SMALLEST_STEP or _objective(trial, toward, variance) <= before:
                break
            size /= 2
        change = float(np.abs(trial.deviations - model.deviations).max())
        model, weights = trial, toward
        if error == model.sds[MISFIT] and change < converged:
            break
    return model


def _objective(model: OperatorModel, weights: Floats, variance: Floats) -> float:
    errors = model.log_ms - np.log(model.totals)
    return float((errors**2 / variance).sum() + weights @ model.deviations)


def components(model: OperatorModel) -> VarianceComponents:
    """Return the likelihood of the rows, linearised, as a function of the deviations."""
    rows, shared = model.by_entry, np.zeros((len(model.log_ms),) * 2)
    unknown = rows @ model.operators.source_covariance(model.operators) @ rows.T
    common, kinds = rows @ model.operators.common, []
    for place, _, similar in model.operators.similarities(model.operators):
        own = rows[:, place].toarray()
        shared += own @ similar @ own.T
        kinds.append(own.sum(axis=1))
    return VarianceComponents(
        model.residual,
        np.diag(model.variance) + common @ common.T + unknown,
        {
            ENTRY: (rows @ rows.T).toarray(),
            MISFIT: np.eye(len(shared)),
            KIND: np.transpose(kinds) @ kinds,
            SHARED: shared,
        },
        _CENTRE_WITH_SOURCES if model.operators.sources else _CENTRE,
        _SD,
    )


def choose_tiles(model: OperatorModel) -> OperatorModel:
    """Return the model with the tiles that make the rows most likely, kind by kind: columns, then rows.

    The costs of all operators stay as they are.
    """
    sds, logs = model.sds, np.log(model.sds)
    for kind in np.unique(model.operators.kinds).tolist():
        place = np.flatnonzero(model.operators.kinds == kind)
        sizes = TILED.get(parse_operator(model.operators.keys[place[0]]).kind)
        if sizes is None or (model.counts[:, place].sum(axis=1) > 0).sum() < TILE_PROGRAMS:
            continue
        for side, candidates in ((1, COLUMNS), (0, ROWS if sizes[0] else ())):
            tile = model.operators.tiles[place[0]]
            tiles = {tuple(np.where(np.arange(2) == side, extent, tile)) for extent in candidates}
            tried = [model, *(with_tile(model, kind, each) for each in sorted(tiles - {tuple(tile)}))]
            model = min(tried, key=lambda each: components(each).cost(logs))
    return model.with_prior(sds)


def with_tile(model: OperatorModel, kind: str, tile: tuple[int, int]) -> OperatorModel:
    """Return the model with another tile of a kind and the same costs, its `covariance` as it was."""
    own = (model.operators.kinds == kind)[:, None]
    operators = replace(model.operators, tiles=np.where(own, tile, model.operators.tiles))
    ratio = model.operators.terms.sum(axis=1) / operators.terms.sum(axis=1)
    return replace(model, operators=operators, deviations=model.deviations + np.log(ratio))


def learn(models: Sequence[MeasuredModel], sources: Sequence[SourceEntries] = ()) -> OperatorModel:
    """Return the model of measured programs: tiles and deviations. Errors as `OperatorModel.start`.

    `sources` are other devices' prices. They know what tiles cost, so that none are chosen.
    """
    blocks = [*(model.blocks for model in models), *(source.entry_ms for source in sources)]
    keys = sorted({key for own in blocks for key in own})
    tiles = {each.features.kind: FIRST_TILE for each in map(parse_operator, keys) if each.kind in TILED}
    others = tuple(OperatorSource.of(source.entry_ms, source.entry_se, tiles) for source in sources)
    centre = _CENTRE_WITH_SOURCES if sources else _CENTRE
    model = solve_rows(OperatorModel.start(models, tiles, np.exp(centre), others))
    model = solve_rows(model.with_prior(components(model).maximise()))
    model = model if sources else solve_rows(choose_tiles(model))
    return solve_rows(model.with_prior(components(model).maximise()), CONVERGED)


def evidence(model: OperatorModel) -> float:
    """Return the logarithm of the likelihood of the rows and the learned deviations, up to a constant."""
    return -components(model).cost(np.log(model.sds)) / 2


@dataclass(frozen=True)
class LeftOut:
    """Networks that were predicted without their family: milliseconds, and predictive deviations of logarithms."""

    ms: Floats
    predicted_ms: Floats
    log_sd: Floats

    @property
    def standardised(self) -> Floats:
        """Errors of logarithms in the deviations that intervals are made of."""
        return np.asarray(np.log(self.ms / self.predicted_ms) / np.hypot(self.log_sd, SD_FLOOR))

    def extrapolated_sd(self) -> float:
        """Return the smallest deviation above which fewer than half were within 10 %, at most the largest."""
        order = np.argsort(self.log_sd, kind="stable")
        near = np.abs(self.predicted_ms / self.ms - 1)[order] <= WITHIN
        lines: list[float] = [0.0, *self.log_sd[order].tolist()]
        missed = [2 * near[below:].sum() < len(near) - below for below in range(len(near))]
        return lines[[*missed, True].index(True)]


def family_of(model: MeasuredModel) -> str:
    """Return the family of a network, "" for a program that was designed. Raises InvalidArtifactError: its JSON."""
    try:
        family = str(json.loads(model.arch)["family"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidArtifactError(
            f"{model.model_id}: arch of a program is JSON with its family; get the LUT again from its origin",
            code="invalid_program",
        ) from None
    return "" if family.startswith(("chain.", "portable.")) else family


def family_folds(models: Sequence[MeasuredModel], folds: int = FOLDS) -> list[NDArray[np.bool_]]:
    """Return masks (m,) of the networks that are held out together: whole families, each network once."""
    families = [family_of(model) for model in models]
    names = sorted({*families} - {""})
    masks = [np.isin(families, names[fold::folds]) for fold in range(min(folds, len(names)))]
    return [mask for mask in masks if not mask.all()]


def predicted(model: OperatorModel, network: MeasuredModel) -> tuple[float, float, float]:
    """Return a network's milliseconds as measured and predicted, and the deviation of the predicted logarithm."""
    _, ms, _, log_sd = model.price_network(network.blocks)
    return network.ms, float(ms.sum()), log_sd


def _without(
    model: OperatorModel, known: Sequence[MeasuredModel], sources: Sequence[SourceEntries]
) -> OperatorModel:
    """Return the model of the known programs alone, and its sources without operators of the others alone.

    A source may know such operators from the same networks.
    """
    rows = rows_of(known, model.operators.keys)
    if not model.operators.sources:
        return replace(model, **rows)
    alone = set(compress(model.operators.keys, rows["counts"].sum(axis=0) == 0))
    others = tuple(
        OperatorSource.of(
            {key: ms for key, ms in source.entry_ms.items() if key not in alone}, source.entry_se, model.tiles
        )
        for source in sources
    )
    operators = replace(model.operators, sources=others)
    return replace(model, operators=operators, **rows).with_prior(model.sds)


def fit_operators(
    measured: Sequence[MeasuredModel], sources: Sequence[SourceEntries] = ()
) -> tuple[OperatorModel, LeftOut, OperatorFit, float]:
    """Fit operators to the fitted models; networks of each family, and held-out ones, calibrate intervals.

    The third value is what a LUT stores of the fit in addition to prices and misfit. With fewer than 19 networks
    intervals are the posterior's, calibrated by every row as the others predict it. `sources` are other devices',
    all left out where the rows are not clearly likelier with them (`sources.KEEP_LOG`); the last value is
    by how much, in natural logarithms, they are likelier without.
    Errors as `OperatorModel.start` and `family_of`.
    """
    fitted = [model for model in measured if model.fitted]
    model, gain = learn(fitted), 0.0
    if sources:
        other = learn(fitted, sources)
        gain = evidence(model) - evidence(other)
        model = other if gain < -KEEP_LOG else model
    found = list[tuple[float, float, float]]()
    for out in family_folds(fitted):
        part = solve_rows(_without(model, [*compress(fitted, ~out)], sources))
        found += [predicted(part, fitted[row]) for row in np.flatnonzero(out)]
    found += [predicted(model, each) for each in measured if each.split == "heldout"]
    left_out = LeftOut(*np.array(found).reshape(-1, 3).T)
    errors = left_out.standardised
    quantile = conformal_quantile(np.abs(errors), CONFIDENCE)
    rows = ((model.inverse @ model.residual) / np.sqrt(np.diag(model.inverse)))[: len(fitted)]
    stored = OperatorFit(
        tiles={kind: tile for kind, tile in model.tiles.items() if kind.partition(".")[0] in TILED},
        entry_sd=float(model.sds[ENTRY]),
        kind_sd=float(model.sds[KIND]),
        shared_sd=float(model.sds[SHARED]),
        quantile_95=predictive_quantile(np.concatenate([rows, errors])) if quantile is None else quantile,
        basis="posterior" if quantile is None else "conformal",
        extrapolated_sd=left_out.extrapolated_sd(),
    )
    return model, left_out, stored, gain
