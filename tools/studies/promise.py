"""What a search with a LUT and inherited accuracies finds, by trainings of others (NAS-Bench-Macro)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from luts.format.schema import Floats
from luts.format.store import load_lut
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from search.algorithms import Constraints, SearchSettings, search
from search.algorithms.objectives import AdditiveModel
from search.blocks import parse_keys
from search.spaces import Arch
from search.spaces.nasbench_macro import key_of
from search.spaces.published import Published
from tools.studies.macro import (
    BUDGETS,
    CALIBRATION_BATCHES,
    NEAR,
    SPACE,
    PricedSpace,
    priced_by,
    read_truth,
    supernet,
)
from tools.studies.shared import Options, run_parallel, tau
from tools.studies.trainings import Training, evaluators
from tools.tables import Tables, log, mean_and_range

NEARBY = np.linspace(1 - NEAR, 1 + NEAR, 61)
"""Budgets around one, relative: one budget's largest network is better or worse by chance."""

SETTINGS = SearchSettings(generations=2, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=2, generations=0, draws=100, additive=0.5, sample=10)


def main(options: Options) -> Tables:
    """Train supernets, search in each at every budget, measure the winners; top-1 in percent, range over supernets.

    A search and the simple rules hold the budget with 95 % confidence; the best network holds it by the prediction.
    """
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    trainings = [supernet(options, SPACE.name, options.epochs, seed) for seed in range(options.seeds)]
    settings = QUICK_SETTINGS if options.quick else SETTINGS
    found = run_parallel(partial(winners, priced, settings), trainings, options)
    measured_ms = _measured([arch for each in found for arch in each.values()], options)
    true = 100 * truth.accuracies(priced.archs)
    macs = np.array([truth.macs[key_of(arch)] for arch in priced.archs])
    params = np.array([arch.params() for arch in priced.archs])
    additive = np.array(AdditiveModel(priced.archs, (true / 100).tolist()).predict(priced.archs))
    rows = []
    for fraction in BUDGETS:
        budget_ms = priced.budget_ms(fraction)
        picked, by_macs = ([each[f"{fraction:.0%}{kind}"] for each in found] for kind in ("", " of MACs"))
        accuracies = [100 * truth.accuracy(arch) for arch in picked]
        equal = [mean_of_equal_latency(priced, true, arch) for arch in picked]
        row: dict[str, object] = {
            "within": f"{fraction:.0%}",
            "ms": budget_ms,
            "found": mean_and_range(accuracies),
            "equal latency": mean_and_range(equal),
            "gain": mean_and_range([a - b for a, b in zip(accuracies, equal, strict=True)]),
            "best": true[priced.latency_ms <= budget_ms].max(),
            "found within MACs": mean_and_range([100 * truth.accuracy(arch) for arch in by_macs]),
        }
        for rule, score in (
            ("most MACs", macs),
            ("most parameters", params),
            ("additive model of truth", additive),
        ):
            row[rule] = true[highest(priced, score, budget_ms)]
        near = [true[highest(priced, macs, budget_ms * factor)] for factor in NEARBY]
        row["most MACs, nearby budgets"] = statistics.fmean(near)
        row["measured ms"] = ", ".join(f"{measured_ms[key_of(arch)]:.3f}" for arch in picked)
        rows.append(row)
    taus = [
        {"of": "latency and MACs", "tau": tau(priced.latency_ms, macs)},
        {"of": "latency and accuracy", "tau": tau(priced.latency_ms, true)},
        {"of": "MACs and accuracy", "tau": tau(macs, true)},
    ]
    return {"Winners on NAS-Bench-Macro": rows, "Kendall's tau": taus}


def winners(
    priced: PricedSpace, settings: SearchSettings, training: Training, on: str, number: int
) -> Mapping[str, Arch]:
    """Train a supernet; return the winner of a search at every budget of latency, and of MACs."""
    training.run(on, number)
    objective = evaluators(training, on, number, calibration_batches=CALIBRATION_BATCHES).likelihood
    settings = settings.model_copy(update={"seed": training.recipe.seed})
    all_macs = [arch.macs().conv_linear for arch in priced.archs]
    found = {}
    for fraction in BUDGETS:
        macs = int(np.quantile(all_macs, fraction, method="higher"))
        budgets = {
            f"{fraction:.0%}": Constraints(latency_ms=priced.budget_ms(fraction)),
            f"{fraction:.0%} of MACs": Constraints(latency_ms=2 * float(priced.latency_ms.max()), macs=macs),
        }
        for name, budget in budgets.items():
            found[name] = search(SPACE, priced.price, objective, budget, settings).winner.architecture()
    return found


def highest(priced: PricedSpace, score: Floats, budget_ms: float) -> int:
    """Return the network with the highest score among those that hold the budget with 95 % confidence."""
    return int(np.where(priced.bound_ms <= budget_ms, score, -np.inf).argmax())


def mean_of_equal_latency(priced: PricedSpace, values: Floats, arch: Arch) -> float:
    """Return the mean value of all networks within 3 % of a network's predicted latency."""
    latency_ms = priced.latency_ms[priced.archs.index(arch)]
    return float(values[np.abs(priced.latency_ms / latency_ms - 1) <= NEAR].mean())


def _measured(archs: Sequence[Arch], options: Options) -> Mapping[str, float]:
    """Return measured latencies by network key, relative to the LUT's reference and in its milliseconds."""
    lut = load_lut(options.lut)
    reference = Published("reference", "the LUT", tuple(parse_keys(lut.reference.blocks)))
    measured = measure_networks(
        MeasureCommand(
            networks={"reference": reference, **{key_of(arch): arch for arch in archs}},
            target=options.target,
            budget_s=options.budget_s,
            self_test=not options.quick,
        ),
        log,
    )
    return {row.model: row.ratio * lut.meta.reference_ms for row in measured.networks}
