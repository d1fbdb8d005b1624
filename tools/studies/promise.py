"""What a search with a LUT and inherited accuracies is worth: its picks judged by trainings of others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from luts.format.schema import Floats
from luts.format.store import load_lut
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import held
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.validate import compare
from orchestrator.plan.plan import model_id
from orchestrator.tasks.side_by_side import measure_beside
from search.algorithms import Budget
from search.algorithms.additive import AdditiveModel
from search.spaces import Arch
from search.spaces.nasbench_macro import key_of
from tools.studies._macro import BUDGETS, SPACE, Priced, Truth, open_truth, priced
from tools.studies._macro_supernets import MacroSupernet, supernets
from tools.studies._options import Options
from tools.studies._processes import side_by_side
from tools.studies._ranks import tau
from tools.studies._searches import searched, settings_of
from tools.studies._spreads import points, spread

WANTED_GAIN, MOST_BELOW = 1.2, 0.4
"""Points of top-1 on random networks of the same latency, and below the true best."""
NEAR = 0.03
"""Networks of the same latency are within this of the pick's, nearby budgets within this of one, either way."""
NEARBY = np.linspace(1 - NEAR, 1 + NEAR, 61)

Choice = Mapping[str, Arch]
"""By budget's name, what was picked."""


@dataclass(frozen=True)
class Measured:
    """Milliseconds by network's key, in those of the LUT's reference; `drift`: what that takes now, relative."""

    ms: Mapping[str, float]
    drift: float


@dataclass(frozen=True)
class Rivals:
    """What else one could take within a latency.

    Attributes:
        rules: Accuracy of what a simple rule takes, which holds the budget as the search does, by its name.
        nearby: The mean of that over `NEARBY` budgets: one budget's pick is one network, better or worse by chance.
        best: Of the truly best network whose predicted latency is within.
    """

    rules: Mapping[str, float]
    nearby: Mapping[str, float]
    best: float


def main(options: Options) -> str:
    """Train supernets that are not there yet, search in each at every budget; the section's text."""
    truth, costs = open_truth(options.truth), priced(options.lut)
    found = side_by_side(partial(picks, costs), supernets(options, SPACE.name, options.epochs), options)
    winners = list(dict.fromkeys(arch for each in found for arch in each.values()))
    measured = _measured(winners, options)
    return section(found, truth, costs, measured, options)


def picks(costs: Priced, run: MacroSupernet, on: str, worker: int) -> Choice:
    """Train a supernet; what a search by `inherited-likelihood` takes at every budget of latency, and of MACs."""
    run.train(on, worker)
    judge, settings = run.judge(on, worker).likelihood, settings_of(run.quick, run.seed)
    found = {}
    for share in BUDGETS:
        found[f"{share:.0%}"] = searched(
            SPACE, costs.price, judge, Budget(latency_ms=costs.budget_ms(share)), settings
        )
        macs = int(np.quantile([arch.macs().conv_linear for arch in costs.archs], share, method="higher"))
        free = Budget(latency_ms=float(costs.latency_ms.max()) * 2, macs=macs)
        found[f"{share:.0%} of MACs"] = searched(SPACE, costs.price, judge, free, settings)
    return found


def of_highest(truth: Truth, costs: Priced, score: Floats, budget_ms: float) -> float:
    """Accuracy of the network with the highest score that holds the budget with 95 % confidence."""
    held = np.where(costs.bound_ms <= budget_ms, score, -np.inf)
    return truth.accuracy(costs.archs[held.argmax()])


def rivals(truth: Truth, costs: Priced, budget_ms: float) -> Rivals:
    """Simple rules, and the truth, within a budget."""
    sizes = {
        "most MACs": np.array([truth.macs[key_of(arch)] for arch in costs.archs]),
        "most parameters": np.array([arch.params() for arch in costs.archs]),
    }
    nearby = {
        name: statistics.fmean(of_highest(truth, costs, size, budget_ms * near) for near in NEARBY)
        for name, size in sizes.items()
    }
    within = [arch for arch, ms in zip(costs.archs, costs.latency_ms, strict=True) if ms <= budget_ms]
    return Rivals(
        {name: of_highest(truth, costs, size, budget_ms) for name, size in sizes.items()},
        nearby,
        max(map(truth.accuracy, within)),
    )


def of_same_latency(truth: Truth, costs: Priced, arch: Arch) -> Floats:
    """Accuracies of all networks within 3 % of a network's predicted latency."""
    ms = dict(zip(costs.archs, costs.latency_ms, strict=True))[arch]
    return np.array(
        [
            truth.accuracy(other)
            for other, latency in zip(costs.archs, costs.latency_ms, strict=True)
            if abs(latency / ms - 1) <= NEAR
        ]
    )


def _measured(archs: Sequence[Arch], options: Options) -> Measured:
    """On the device, beside the LUT's reference; what was measured before is read again."""
    table = load_lut(options.lut)
    variant = Variant.parse(table.meta.variant)
    specs = {model_id(arch.keys()): variant.export_spec(arch.keys()) for arch in archs}
    with resolve(options.device) as device, held(device):
        measurement, run = measure_beside(
            device, variant, table, specs, budget_s=options.budget_s, seed=0, reuse=True
        )
    run.finish("measured")
    compared = compare(table.latency_model, archs, measurement, table.meta.reference_ms)
    ms = {key_of(arch): row.measured_ms for arch, row in zip(archs, compared, strict=True)}
    return Measured(ms, measurement.reference.ms / table.meta.reference_ms)


def section(
    found: Sequence[Choice],
    truth: Truth,
    costs: Priced,
    measured: Measured,
    options: Options,
) -> str:
    """Tables over budgets, and what is missed, in words."""
    rows, missed = [], []
    for share in BUDGETS:
        name, budget_ms = f"{share:.0%}", costs.budget_ms(share)
        won = [each[name] for each in found]
        taken = [truth.accuracy(arch) for arch in won]
        rival = rivals(truth, costs, budget_ms)
        same = [of_same_latency(truth, costs, arch).mean() for arch in won]
        macs_won = [each[f"{name} of MACs"] for each in found]
        by_macs = [truth.accuracy(arch) for arch in macs_won]
        macs_within = sum(measured.ms[key_of(arch)] <= budget_ms for arch in macs_won)
        gains = [100 * (a - b) for a, b in zip(taken, same, strict=True)]
        below = 100 * (rival.best - statistics.fmean(taken))
        over = [key_of(arch) for arch in won if measured.ms[key_of(arch)] > budget_ms]
        rules = [f"{100 * rival.rules[rule]:.2f}, {100 * rival.nearby[rule]:.2f}" for rule in rival.rules]
        cells = [
            f"{name}, {budget_ms:.2f} ms",
            spread(taken, 2),
            spread(same, 2),
            *rules,
            f"{spread(by_macs, 2)}, {macs_within} of {len(found)}",
            f"{100 * rival.best:.2f}",
            points(gains),
            f"{below:.2f}",
            f"{len(won) - len(over)} of {len(won)}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
        missed += _missed(name, gains, taken, rival, below, over)
    said = "; ".join(missed) or "none"
    true = [truth.accuracy(arch) for arch in costs.archs]
    sums = np.array(AdditiveModel(costs.archs, true).predict(costs.archs))
    by_sums = ", ".join(
        f"{100 * of_highest(truth, costs, sums, costs.budget_ms(share)):.2f}" for share in BUDGETS
    )
    macs = [truth.macs[key_of(arch)] for arch in costs.archs]
    seeds = f"{len(found)} supernets" if len(found) > 1 else "one supernet: no interval over seeds"
    settings = settings_of(options.quick)
    return f"""### What a search finds, judged by others' trainings (NAS-Bench-Macro)

{costs.made_up}Targets that are missed: {said}.

Space `nasbench-macro`, latency by {costs.name}, budgets that so many of the 6,561 networks meet by it. {seeds},
{options.epochs} epochs of `one-cycle` each; the search is that of `bench search` with {settings.evaluations}
evaluations by `inherited-likelihood`, half of it by an additive model (`--additive 50%`) of {settings.sample} more.
It holds its budget with 95 % confidence, and so do the simple rules. True top-1 in percent is the published one on
CIFAR-10 (mean of two trainings). Same latency: mean of all networks within {NEAR:.0%} of the pick's. Most MACs or
parameters: at the budget, then the mean over {len(NEARBY)} budgets within {NEAR:.0%} of it. MACs budget: the same
search within the MACs that so many networks have, and how many of its picks are within the latency. Gain: on the
same latency; below: the best; both in points. Measured: how many picks are within the latency, which is measured
beside the LUT's reference and in its milliseconds; it took {measured.drift:.2f} times as long as when the LUT was
made. Means over supernets, the smallest and largest in brackets; gain with the 95 % interval of its mean
(Student's).

| within | picked | same latency | most MACs | most parameters | MACs budget | best | gain | below | measured |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Kendall's tau over the {len(true)} networks: latency and MACs {tau(costs.latency_ms, macs):.2f}, latency and true
accuracy {tau(costs.latency_ms, true):.2f}, MACs and true accuracy {tau(macs, true):.2f}. If each choice
were worth the same in every network, and that were known from all true accuracies, one would pick {by_sums}.
"""


def _missed(
    name: str,
    gains: Sequence[float],
    taken: Sequence[float],
    rival: Rivals,
    below: float,
    over: Sequence[str],
) -> list[str]:
    missed = []
    if (gain := statistics.fmean(gains)) < WANTED_GAIN:
        missed.append(f"at {name} {gain:+.2f} points on the same latency, {WANTED_GAIN} wanted")
    for rule, accuracy in rival.rules.items():
        if (picked := statistics.fmean(taken)) <= accuracy:
            near = "also" if picked <= rival.nearby[rule] else "not"
            missed.append(
                f"at {name} {rule} within the budget is as good or better ({near} over nearby budgets)"
            )
    if below > MOST_BELOW:
        missed.append(f"at {name} {below:.2f} points below the true best, {MOST_BELOW} wanted")
    if over:
        missed.append(f"at {name} measured over the budget: {', '.join(sorted(set(over)))}")
    return missed
