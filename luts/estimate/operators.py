"""The fit of a LUT of operators: latencies of whole programs, or of single operators, as sums of operators.

The model is `luts.format.operator_latency`'s; here its values are learned. What deviations are likely, and how far
intervals reach, is estimated as in the joint fit (`likelihood.VarianceComponents`, `statistics`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luts.estimate.likelihood import ENTRY, KIND, MISFIT, SHARED, VarianceComponents
from luts.estimate.physics import coefficients_of
from luts.estimate.statistics import CONFIDENCE, conformal_quantile, predictive_quantile
from luts.format.errors import InvalidArtifactError
from luts.format.operator_latency import SD_FLOOR, TILED, OperatorModel, ProgramRows
from luts.format.operators import parse_operator
from luts.format.schema import Floats, KindPrior, MeasuredModel, OperatorFit

_CENTRE = np.log([0.05, 0.03, 0.7, 0.3])
_SD = np.array([0.7, 0.7, 0.3, 0.5])
"""Weak priors of the learned deviations of logarithms. In a trial with 225 programs on x86 single operators
strayed 5 % from others alike, programs 3 % from sums, and operators 30 % from physics together."""

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


def solve_rows(
    model: OperatorModel, *, annealed: bool = False, converged: float = NEARLY_CONVERGED
) -> OperatorModel:
    """Return the model at its most probable coefficients and deviations: Gauss-Newton with line search.

    It solves for m rows instead of k operators. The prior's penalty of a point z is v' (z - mean), v its weights.

    Args:
        model: The point to start from; with `annealed` its own start.
        annealed: Start from the prior and let the rows' error shrink to its value.
        converged: Largest change of a logarithm in the last step.
    """
    origin = OperatorModel.start(model.rows, model.tiles, model.sds)
    model, weights = (origin, np.zeros(len(_point(origin)))) if annealed else (model, None)
    for step in range(STEPS):
        error = max(float(model.sds[MISFIT]), ANNEALED_SD * ANNEALING**step if annealed else 0.0)
        variance = model.rows.variance + error**2
        alpha = np.linalg.solve(model.covariance(variance), model.residual)
        aim = np.concatenate([model.by_coefficient.T @ alpha, model.by_entry.T @ alpha])
        moved = model.coefficient_covariance @ (model.by_coefficient.T @ alpha)
        target = replace(
            model,
            coefficients=origin.coefficients + moved.reshape(origin.coefficients.shape),
            deviations=model.deviations_to_rows @ alpha,
        )
        size, before = 1.0, math.inf
        if weights is not None:  # those of the start are known after the first step only
            before = _objective(model, origin, weights, variance)
        while True:
            trial = _between(model, target, size)
            toward = aim if weights is None else weights + size * (aim - weights)
            if size < SMALLEST_STEP or _objective(trial, origin, toward, variance) <= before:
                break
            size /= 2
        change = float(np.abs(_point(trial) - _point(model)).max())
        model, weights = trial, toward
        if error == model.sds[MISFIT] and change < converged:
            break
    return model


def _point(model: OperatorModel) -> Floats:
    return np.concatenate([model.coefficients.ravel(), model.deviations])


def _between(one: OperatorModel, other: OperatorModel, share: float) -> OperatorModel:
    return replace(
        one,
        coefficients=one.coefficients + share * (other.coefficients - one.coefficients),
        deviations=one.deviations + share * (other.deviations - one.deviations),
    )


def _objective(model: OperatorModel, origin: OperatorModel, weights: Floats, variance: Floats) -> float:
    errors = model.rows.log_ms - np.log(model.totals)
    return float((errors**2 / variance).sum() + weights @ (_point(model) - _point(origin)))


def components(model: OperatorModel) -> VarianceComponents:
    """Return the likelihood of the rows, linearised, as a function of the deviations."""
    design = model.by_coefficient
    fixed = replace(model, sds=model.sds * [1, 1, 0, 1]).coefficient_covariance
    return VarianceComponents(
        model.residual,
        np.diag(model.rows.variance) + design @ fixed @ design.T,
        {
            ENTRY: model.by_entry @ model.by_entry.T,
            MISFIT: np.eye(len(design)),
            KIND: design @ design.T,
            SHARED: model.by_entry @ model.shared_to_rows,
        },
        _CENTRE,
        _SD,
    )


def _with_tile(model: OperatorModel, kind: str, tile: tuple[int, int]) -> OperatorModel:
    """Return the model with another tile of a kind, at the same costs of all operators."""
    other = replace(model, rows=model.rows.with_tile(kind, tile), tiles={**model.tiles, kind: tile})
    return replace(other, deviations=model.deviations + np.log(model.physics / other.physics))


def choose_tiles(model: OperatorModel) -> OperatorModel:
    """Return the model with the tiles that make the rows most likely, kind by kind: columns, then rows."""
    for kind, (place, _) in model.rows.similarities.items():
        if (model.rows.counts[:, place].sum(axis=1) > 0).sum() < TILE_PROGRAMS:
            continue
        sizes = TILED.get(parse_operator(model.rows.operators.keys[place[0]]).kind)
        if sizes is None:
            continue
        for side, candidates in ((1, COLUMNS), (0, ROWS if sizes[0] else ())):
            costs = {model.tiles[kind]: components(model).cost(np.log(model.sds))}
            models = {model.tiles[kind]: model}
            for extent in candidates:
                tile = (extent, model.tiles[kind][1]) if side == 0 else (model.tiles[kind][0], extent)
                if tile not in models:
                    models[tile] = _with_tile(model, kind, tile)
                    costs[tile] = components(models[tile]).cost(np.log(model.sds))
            model = models[min(costs, key=lambda tile: costs[tile])]
    return model


def learn(models: Sequence[MeasuredModel]) -> OperatorModel:
    """Return the model of measured programs: tiles, deviations, coefficients. Errors as `ProgramRows.of`."""
    operators = map(parse_operator, sorted({key for model in models for key in model.blocks}))
    tiles = {each.features.kind: FIRST_TILE for each in operators if each.kind in TILED}
    model = OperatorModel.start(ProgramRows.of(models, tiles), tiles, np.exp(_CENTRE))
    model = solve_rows(model, annealed=True)
    model = choose_tiles(solve_rows(replace(model, sds=components(model).maximise())))
    model = solve_rows(model)
    return solve_rows(replace(model, sds=components(model).maximise()), converged=CONVERGED)


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


def leave_families_out(
    model: OperatorModel, fitted: Sequence[MeasuredModel]
) -> list[tuple[float, float, float]]:
    """Return `predicted` of the networks among the rows by the other families and the designed programs."""
    found: list[tuple[float, float, float]] = []
    for out in family_folds(fitted):
        part = solve_rows(replace(model, rows=model.rows.only(np.flatnonzero(~out))))
        found += [predicted(part, fitted[row]) for row in np.flatnonzero(out)]
    return found


def predicted(model: OperatorModel, network: MeasuredModel) -> tuple[float, float, float]:
    """Return a network's milliseconds as measured and predicted, and the deviation of the predicted logarithm."""
    costs, counts, parts = model.price(network.blocks)
    log_sd = float(np.sqrt(max(parts.sum(), 0.0) + model.sds[MISFIT] ** 2))
    return network.ms, float(counts @ costs.ms), log_sd


@dataclass(frozen=True)
class OperatorEstimates:
    """The fit of a LUT of operators; `stored` is what the LUT keeps of it in addition to prices and physics."""

    model: OperatorModel
    left_out: LeftOut
    stored: OperatorFit

    @property
    def misfit_sd(self) -> float:
        """Relative misfit of additivity."""
        return float(self.model.sds[MISFIT])

    @property
    def prior(self) -> tuple[KindPrior, ...]:
        """Physics by kind; 0 for a term that no operator of the kind has."""
        found = []
        for (kind, (place, _)), logs in zip(
            self.model.rows.similarities.items(), self.model.coefficients, strict=True
        ):
            has = self.model.rows.operators.amounts[place].any(axis=0)
            found.append(KindPrior(kind=kind, **dict(coefficients_of(np.exp(logs) * has))))
        return tuple(found)

    def price(self, keys: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return ms of operators, measured or not, and standard deviations of their logarithms."""
        costs = self.model.costs(keys)
        return costs.ms.tolist(), self.model.log_sd(costs).tolist()


def fit_operators(measured: Sequence[MeasuredModel]) -> OperatorEstimates:
    """Fit operators to the fitted models; networks of each family, and held-out ones, calibrate intervals.

    With fewer than 19 networks intervals are the posterior's, calibrated by every row as the others predict it.
    Errors as `ProgramRows.of` and `family_of`.
    """
    fitted = [model for model in measured if model.fitted]
    model = learn(fitted)
    heldout = [predicted(model, each) for each in measured if each.split == "heldout"]
    left_out = LeftOut(*np.array([*leave_families_out(model, fitted), *heldout]).reshape(-1, 3).T)
    errors = left_out.standardised
    quantile = conformal_quantile(np.abs(errors), CONFIDENCE)
    rows = (model.inverse @ model.residual) / np.sqrt(np.diag(model.inverse))
    stored = OperatorFit(
        tiles=dict(model.tiles),
        entry_sd=float(model.sds[ENTRY]),
        kind_sd=float(model.sds[KIND]),
        shared_sd=float(model.sds[SHARED]),
        quantile_95=predictive_quantile(np.concatenate([rows, errors])) if quantile is None else quantile,
        basis="posterior" if quantile is None else "conformal",
        extrapolated_sd=left_out.extrapolated_sd(),
    )
    return OperatorEstimates(model, left_out, stored)
