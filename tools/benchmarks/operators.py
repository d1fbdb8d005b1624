"""A LUT of operators: networks of families that it was not fitted to, compared with simpler predictors.

Nothing is measured here: programs and networks are those of a LUT (`bench profile --space operators`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from luts.build import estimates_of, fit_measured
from luts.estimate.likelihood import FitData
from luts.estimate.operators import LeftOut, evidence, family_folds, family_of, learn, predicted
from luts.estimate.sources import SourceEntries, source_from_lut
from luts.estimate.statistics import CONFIDENCE, conformal_quantile, kendall_tau, mape, share_within
from luts.format.errors import UsageError
from luts.format.operator_latency import TERMS, OperatorModel, Operators
from luts.format.schema import Floats, MeasuredModel
from luts.format.store import lut_store
from orchestrator.agent.device import usable_cores
from orchestrator.plan.operators import plan_operators
from orchestrator.tasks.sources import price_blocks
from tools.benchmarks.shared import entries_of, predicted_ms
from tools.tables import Tables, log, run_parallel

LUT = os.environ.get("BLOCKTIME_OPERATORS", "host/operators")
"""Name or folder of the LUT."""
DESIGNED, NETWORKS, CURVE_FOLDS = (45, 90, 180), (0, 20, 40), 4
"""Numbers of programs to learn from, and of folds of the learning curve."""
SOURCE, FEW_PROGRAMS = os.environ.get("BLOCKTIME_SOURCE", "host/operators"), (10, 20, 40)
"""Another LUT to learn from, and numbers of programs to learn from with it."""
SPACE_LUT = os.environ.get("BLOCKTIME_SPACE_LUT", "host/autovit-cifar16")
"""LUT of a space, whose blocks are priced by operators."""
FEW, DRAWS = (6, 10, 20), 10
"""Networks of the space to learn from, and draws of them."""
RIDGE = 1e-3
"""Of linear predictors, relative to the mean latency: decides only what the programs leave open."""

Predictor = Callable[[Sequence[MeasuredModel], Sequence[MeasuredModel]], Floats]
"""From programs to learn from and networks: their predicted ms and standard deviations of logarithms (2, n)."""


def by_operators(known: Sequence[MeasuredModel], networks: Sequence[MeasuredModel]) -> Floats:
    """Predict by the fit that a LUT of operators stores, tiles and deviations learned without the networks."""
    model = learn(known)
    return np.array([predicted(model, network)[1:] for network in networks]).T


def without_tracer(known: Sequence[MeasuredModel], networks: Sequence[MeasuredModel]) -> Floats:
    """Predict as `by_operators`, without what a tracer told of the programs."""
    return by_operators([model.model_copy(update={"operator_ms": None}) for model in known], networks)


def _amounts(models: Sequence[MeasuredModel]) -> Floats:
    """Return (m, kinds, TERMS) sums of physical amounts over programs, each kind of operator apart."""
    keys, place = np.unique([key for model in models for key in model.blocks], return_inverse=True)
    arrays = Operators.of(keys.tolist(), {})
    kinds, kind = np.unique(arrays.kinds, return_inverse=True)
    sums = np.zeros((len(models), len(kinds), TERMS))
    rows = np.repeat(np.arange(len(models)), [len(model.blocks) for model in models])
    np.add.at(sums, (rows, kind[place]), arrays.amounts[place])
    return sums


def _linear(columns: Floats, known: Sequence[MeasuredModel]) -> Floats:
    """Predict the rows by non-negative least squares of relative errors of the first ones, which are known."""
    from scipy.optimize import nnls

    ms, scale = np.array([model.ms for model in known]), np.maximum(columns[: len(known)].max(axis=0), 1e-12)
    scaled = columns / scale
    system = np.vstack([scaled[: len(ms)] / ms[:, None], RIDGE / ms.mean() * np.eye(len(scale))])
    solved = nnls(system, np.concatenate([np.ones(len(ms)), np.zeros(len(scale))]))[0]
    return np.asarray(scaled @ solved)


def by_macs(known: Sequence[MeasuredModel], networks: Sequence[MeasuredModel]) -> Floats:
    """Predict by a line through MACs."""
    macs = _amounts([*known, *networks])[:, :, 1:3].sum(axis=(1, 2))
    return _linear(np.column_stack([np.ones(len(macs)), macs]), known)[None, len(known) :]


def by_physics(known: Sequence[MeasuredModel], networks: Sequence[MeasuredModel]) -> Floats:
    """Predict by calls, MACs and bytes of each kind of operator, without tiles."""
    sums = _amounts([*known, *networks])
    return _linear(sums.reshape(len(sums), -1), known)[None, len(known) :]


def by_forest(known: Sequence[MeasuredModel], networks: Sequence[MeasuredModel]) -> Floats:
    """Predict by a random forest over whole programs: ratio to linear physics from their amounts by kind."""
    from sklearn.ensemble import RandomForestRegressor

    sums = _amounts([*known, *networks]).reshape(len(known) + len(networks), -1)
    count, inputs, physics = len(known), np.log1p(sums), np.maximum(_linear(sums, known), 1e-6)
    forest = RandomForestRegressor(200, min_samples_leaf=2, random_state=0)
    forest.fit(inputs[:count], np.log([model.ms for model in known] / physics[:count]))
    return np.asarray(physics[count:] * np.exp(forest.predict(inputs[count:])))[None]


PREDICTORS: Mapping[str, Predictor] = {
    "MACs, linear": by_macs,
    "physics by kind, linear": by_physics,
    "random forest": by_forest,
    "operators": without_tracer,
    "operators, traced ones too": by_operators,
}


def _score(found: Floats, folds: Sequence[int]) -> dict[str, object]:
    """Return errors in percent of networks: measured and predicted ms, deviations (3, n) or (2, n)."""
    ms, guess = found[0].tolist(), found[1].tolist()
    row: dict[str, object] = {
        "networks": len(ms),
        "MAPE": 100 * mape(ms, guess),
        "within 10 %": 100 * share_within(ms, guess, 0.1),
        "worst": 100 * float(np.abs(found[1] / found[0] - 1).max()),
        "coverage of 95 %": None,
    }
    if len(found) == 3:
        errors = np.abs(LeftOut(*found).standardised)
        covered = [
            errors[place] <= limit
            for place, fold in enumerate(folds)
            if (limit := conformal_quantile(errors[np.array(folds) != fold], CONFIDENCE)) is not None
        ]
        row["coverage of 95 %"] = 100 * float(np.mean(covered)) if covered else None
    return row


def _held_out(
    task: tuple[Predictor, Sequence[MeasuredModel], int, int | None, int | None],
) -> dict[str, object]:
    """Score a predictor on networks of families that it did not see, of so many designed programs and networks."""
    predictor, models, count, designed, networks = task
    found, folds = list[Floats](), list[int]()
    for fold, out in enumerate(family_folds(models, count)):
        known = [model for model, held in zip(models, out, strict=True) if not held]
        known = [
            *_spread([model for model in known if not family_of(model)], designed),
            *_spread([model for model in known if family_of(model)], networks),
        ]
        wanted = [model for model, held in zip(models, out, strict=True) if held]
        found.append(np.vstack([[model.ms for model in wanted], predictor(known, wanted)]))
        folds += [fold] * len(wanted)
    row = _score(np.hstack(found), folds)
    log(f"{predictor.__name__} from {designed} designed programs and {networks} networks: {row}")
    return row


def _spread(models: Sequence[MeasuredModel], most: int | None) -> list[MeasuredModel]:
    """Return so many models, evenly spread over the list."""
    if most is None or most >= len(models):
        return list(models)
    return [models[place * len(models) // most] for place in range(most)]


def blocks() -> Tables:
    """Predict networks of a space by its blocks' operators, and by fits of few with and without these.

    Errors in percent of the LUT's held-out networks, medians over draws of the networks to learn from.
    """
    store = lut_store(None)
    lut, operators = (store.load(store.resolve(name)) for name in (SPACE_LUT, LUT))
    estimation, features = estimates_of(lut), {entry.key: entry.features for entry in lut.entries}
    priced = price_blocks(LUT, operators, features, usable_cores(), log)
    heldout = [model for model in lut.models if model.split == "heldout"]
    fitted = [model for model in lut.models if model.fitted]
    wanted = FitData.of(heldout, np.zeros((len(heldout), len(heldout))))

    def error(costs: SourceEntries) -> float:
        return 100 * mape(wanted.ms.tolist(), predicted_ms(costs, wanted).tolist())

    rows: list[dict[str, object]] = [{"networks": 0, "without": None, "with operators": error(priced)}]
    for count in FEW:
        row: dict[str, object] = {"networks": count}
        for name, sources in (("without", ()), ("with operators", (priced,))):
            draws = [np.random.default_rng(seed).permutation(len(fitted))[:count] for seed in range(DRAWS)]
            fits = [
                fit_measured([fitted[at] for at in draw], estimation, features, sources) for draw in draws
            ]
            row[name] = float(np.median([error(entries_of(name, fit)) for fit in fits]))
            row[f"dropped {name}"] = sum(bool(fit.dropped) for fit in fits)
        rows.append(row)
    known = [(entry.ms, priced.entry_ms[entry.key]) for entry in lut.entries if entry.method == "design"]
    tau = kendall_tau(*zip(*known, strict=True))
    return {f"{SPACE_LUT} by operators of {LUT}; {len(known)} blocks, Kendall's tau {tau:.2f}": rows}


def _prices(model: OperatorModel) -> SourceEntries:
    """Return a model's prices of its operators, as a LUT has them."""
    operators, ms, covariance = model.price(model.operators.keys)
    se = ms * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    pairs = (dict(zip(operators.keys, values.tolist(), strict=True)) for values in (ms, se))
    return SourceEntries("", next(pairs), entry_se=next(pairs))


def transfer() -> Tables:
    """Predict a LUT's networks from few of its programs, with and without another LUT; errors in percent.

    Programs are those that a plan of so many measures, networks all others, which the other LUT has too or not.
    """
    store = lut_store(None)
    lut, source = (store.load(store.resolve(name)) for name in (LUT, SOURCE))
    models = [model for model in lut.models if model.fitted]
    others = [model for model in source.models if model.fitted]
    rows: list[dict[str, object]] = []
    for count in FEW_PROGRAMS:
        planned = {model.model_id for model in plan_operators(0, models=count).models}
        known = [model for model in models if model.model_id in planned]
        wanted = [model for model in models if model.model_id not in planned and family_of(model)]
        apart = {model.model_id for model in wanted}
        blind = learn([model for model in others if model.model_id not in apart])
        whole = source_from_lut(SOURCE, source)
        for name, sources in (("none", ()), ("whole", (whole,)), ("without these", (_prices(blind),))):
            model = learn(known, sources)
            found = np.array([predicted(model, network) for network in wanted]).T
            errors = np.abs(LeftOut(*found).standardised)
            row = {"programs": len(known), "source": name, **_score(found, range(len(wanted)))}
            row["coverage of 95 %"] = 100 * float(np.mean(errors <= 1.96))
            rows.append(row | {"evidence": evidence(model)})
    return {f"{LUT} from few programs and {SOURCE}": rows}


def main() -> Tables:
    """Hold families out in eight folds, and learn from fewer programs; errors of measured latencies in percent.

    Coverage is of intervals calibrated on the other folds.
    """
    store = lut_store(None)
    lut = store.load(store.resolve(LUT))
    if lut.meta.operators is None:
        raise UsageError(
            f"{LUT} is not a LUT of operators; bench profile --space operators", code="no_operators"
        )
    models = [model for model in lut.models if model.fitted]
    traced = any(model.operator_ms for model in models)
    predictors = {name: own for name, own in PREDICTORS.items() if traced or own is not by_operators}
    every = [(predictor, models, 8, None, None) for predictor in predictors.values()]
    pairs = [(designed, networks) for designed in DESIGNED for networks in NETWORKS]
    curve = [(without_tracer, models, CURVE_FOLDS, *pair) for pair in pairs]
    rows = run_parallel(_held_out, [*every, *curve], usable_cores())
    return {
        f"{LUT}: {len(models)} programs, families held out": [
            {"predictor": name, **row} for name, row in zip(predictors, rows, strict=False)
        ],
        "Programs to learn from": [
            {"designed": designed, "networks of other families": networks, **row}
            for (designed, networks), row in zip(pairs, rows[len(every) :], strict=True)
        ],
    }
