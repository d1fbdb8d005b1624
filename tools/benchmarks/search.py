"""How fast architectures are priced, what a space can reach, and which strategy finds it: AutoViT's Table 6, small.

The second part trains a supernet on scikit-learn's digits and profiles `autovit-nano` on this machine; a part of
that space is then evaluated whole, so that every strategy can be held against the truth.
"""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from luts.format.latency import EntryCost, LatencyModel
from luts.format.store import LutStore
from orchestrator.agent.device import usable_cores
from search.algorithms import (
    INHERITED_ACCURACY,
    Budget,
    CachedEvaluator,
    CompiledSpace,
    LutPrice,
    ObjectiveOpener,
    SearchSettings,
    reachable,
    search,
)
from search.algorithms.cost import compile_limits
from search.algorithms.evaluation import ProcessPool
from search.algorithms.feasible import FeasibleSet
from search.spaces import Arch, Space, Value, get_space

BENCH = Path(sys.executable).parent / "bench"
SPACE = "autovit-nano"
BATCH = 1_000_000
PLAIN_BATCH = 2_000
ROUNDS = 15
SHOWN_SEEDS = 5
SEEDS = 200
STRATEGIES = ("random", "evolution", "coarse-to-fine")
SCALES = tuple(
    SearchSettings(population=8, skeletons=4, generations=generations, parents=4, crossovers=4, mutations=4)
    for generations in (1, 2, 5)
)
"""16, 24 and 48 evaluations."""


def main() -> str:
    """The section."""
    with tempfile.TemporaryDirectory() as folder:
        luts, supernet = _prepare(Path(folder))
        store = LutStore([luts])
        lut = store.load(store.resolve(f"host/{SPACE}").path)
        measured = LutPrice(lut.latency_model, lut.meta.reference_id)
        pricing = [
            _pricing(get_space(SPACE), measured, "LUT measured here"),
            _pricing(get_space("autovit-xxs"), synthetic(get_space("autovit-xxs")), "synthetic LUT"),
        ]
        return "\n\n".join(
            [_pricing_section(pricing), _reach_section(), _strategies_section(measured, supernet)]
        )


def synthetic(space: Space) -> LutPrice:
    """Entries for every block of a space: a nanosecond per MAC, give or take half, and 10 us each."""
    rng = random.Random(0)
    costs = {
        block.key: EntryCost(block.macs().total * 1e-6 * (0.5 + rng.random()) + 0.01, 0.005, False)
        for block in space.block_specs()
    }
    return LutPrice(LatencyModel(0.1, 0.05, costs, 0.05, 0.95), "synthetic")


def part_of_nano() -> Space:
    """288 architectures that differ in widths, depths, heads, ratios and the number of stages."""
    kept: dict[str, dict[str, tuple[Value, ...]]] = {
        "mbconv1": {"width": (24,)},
        "transformer1": {"heads": (2,)},
        "transformer2": {"mlp_ratio": (2.0,)},
    }
    space = get_space(SPACE)
    stages = tuple(
        dataclasses.replace(
            stage,
            choices=tuple(
                (name, kept.get(stage.name, {}).get(name, values)) for name, values in stage.choices
            ),
        )
        for stage in space.stages
    )
    return dataclasses.replace(space, stages=stages)


@dataclasses.dataclass(frozen=True)
class Pricing:
    """Architectures priced in a second of one core, round by round, by each way of doing it."""

    space: str
    lut: str
    rates: dict[str, list[float]]

    def ratio(self, fast: str, slow: str) -> tuple[float, float, float]:
        """Median of the rounds' ratios, and the 2.5th and 97.5th percentile of that median under resampling."""
        ratios = np.array(self.rates[fast]) / np.array(self.rates[slow])
        rng = np.random.default_rng(0)
        medians = np.median(ratios[rng.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
        low, high = np.quantile(medians, (0.025, 0.975))
        return float(np.median(ratios)), float(low), float(high)


LATENCY, EVERYTHING, SUM, WHOLE = (
    "compiled, latency",
    "compiled, latency, bound, parameters, MACs and memory",
    "Python sum over a list of keys",
    "Python, keys from the architecture too",
)


def _pricing(space: Space, price: LutPrice, lut: str) -> Pricing:
    compiled, model = CompiledSpace(space, price), price.model
    rng = random.Random(0)
    archs = [space.sample(rng) for _ in range(PLAIN_BATCH)]
    few = compiled.encode(archs)
    many = np.asfortranarray(few[np.random.default_rng(0).integers(0, len(few), BATCH)])
    entry_ms = {key: cost.ms for key, cost in model.costs.items()}
    keys = [arch.keys() for arch in archs]
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        LATENCY: (BATCH, lambda: compiled.channel(many)),
        EVERYTHING: (BATCH, lambda: compiled.price(many)),
        SUM: (PLAIN_BATCH, lambda: [sum(entry_ms[key] for key in row) for row in keys]),
        WHOLE: (PLAIN_BATCH, lambda: [sum(entry_ms[key] for key in arch.keys()) for arch in archs]),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (count, run) in rng.sample(sorted(ways.items()), len(ways)):
            begun_s = time.process_time()
            run()
            rates[name].append(count / (time.process_time() - begun_s))
    return Pricing(space.name, lut, rates)


def _pricing_section(pricing: Sequence[Pricing]) -> str:
    columns = " | ".join(f"{p.space}, {p.lut}" for p in pricing)
    rows = [
        f"| {name} | {' | '.join(f'{np.median(p.rates[name]):,.0f}' for p in pricing)} |"
        for name in (LATENCY, EVERYTHING, SUM, WHOLE)
    ]
    ratios = [
        f"- {p.space}: compiled latency is {middle:,.0f} times as fast as the Python sum over keys "
        f"(95 % interval of the median ratio: {low:,.0f} to {high:,.0f})"
        for p in pricing
        for middle, low, high in [p.ratio(LATENCY, SUM)]
    ]
    return f"""## Architectures priced in a second

Architectures a second of one core's time, median of {ROUNDS} rounds in which all four took turns; batches of
{BATCH:,} and {PLAIN_BATCH:,}. The prices do not depend on which architectures they are of.

| | {columns} |
|---|{"---|" * len(pricing)}
{chr(10).join(rows)}

{chr(10).join(ratios)}

For orientation, measured elsewhere by others: 325 a second (AutoFormer), 16,000 (once-for-all's lookup table),
65,000 (nn-Meter's table of a hybrid space)."""


def _reach_section() -> str:
    space = get_space("autovit-xxs")
    price = synthetic(space)
    begun_s = time.process_time()
    reach = reachable(space, price, Budget(latency_ms=1))
    reach_s = time.process_time() - begun_s
    compiled = CompiledSpace(space, price)
    least, most = reach.smallest.priced.latency_high_ms, reach.largest.priced.latency_high_ms
    rows = []
    for share in (0.01, 0.05, 0.2):
        limits = compile_limits(compiled, Budget(latency_ms=least + share * (most - least)))
        begun_s = time.process_time()
        drawn = FeasibleSet(compiled, limits).sample(10_000, np.random.default_rng(0))
        drawing_s = time.process_time() - begun_s
        accepted = len(drawn.codes) / drawn.proposed
        within = FeasibleSet(compiled, limits).most * accepted / space.size()
        rows.append(f"| {limits.largest[0]:.0f} ms | {within:.2g} | {accepted:.1%} | {drawing_s:.2f} s |")
    return f"""## What a space can reach

{space.name} has {space.size():.3g} architectures. With a synthetic LUT: exact smallest and largest latency
({least:.0f} and {most:.0f} ms, bounds at 95 %), exact fronts of latency against fewest parameters
({len(reach.lean)} architectures), most parameters ({len(reach.most_params)}) and most MACs
({len(reach.most_macs)}), together in {reach_s:.2f} s of one core. 10,000 uniform draws from within a budget:

| budget | share of the space within it | of our draws accepted | time, preparation included |
|---|---|---|---|
{chr(10).join(rows)}"""


def _prepare(home: Path) -> tuple[Path, Path]:
    """A LUT of the space on this machine, and a supernet of it."""
    environment = os.environ | {"BLOCKTIME_LUTS": str(home / "luts"), "BLOCKTIME_RUNS": str(home / "runs")}
    for command in (
        ["profile", "--device", "host", "--space", SPACE, "--budget", "1m", "--from", "none"],
        ["train", "--space", SPACE, "--data", "digits", "--recipe", "demo", "-o", str(home / "supernet")],
    ):
        subprocess.run([str(BENCH), *command], env=environment, stdout=subprocess.DEVNULL, check=True)
    return home / "luts", home / "supernet"


class _Known:
    """Accuracies that were evaluated before, counted as if they were evaluated anew."""

    def __init__(self, accuracies: dict[Arch, float], fingerprint: str):
        self.known, self.fingerprint = accuracies, fingerprint

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        return [self.known[arch] for arch in archs]


def _strategies_section(price: LutPrice, supernet: Path) -> str:
    space = part_of_nano()
    archs = list(space)
    begun_s = time.monotonic()
    known = _evaluate(archs, supernet)
    evaluating_s = time.monotonic() - begun_s
    compiled = CompiledSpace(space, price)
    bounds = compiled.price(compiled.encode(archs)).latency_high_ms[0]
    budget = Budget(latency_ms=float(np.median(bounds)))
    within = [known.known[arch] for arch, ms in zip(archs, bounds, strict=True) if ms <= budget.latency_ms]
    each_s = evaluating_s * usable_cores() / len(archs)
    runs = {
        (settings.evaluations, strategy): _row(
            space,
            price,
            known,
            budget,
            settings.model_copy(update={"strategy": strategy}),
            max(within),
            each_s,
        )
        for settings in SCALES
        for strategy in STRATEGIES
    }
    rows = [row for row, _ in runs.values()]
    below = {key: behind for key, (_, behind) in runs.items()}
    return f"""## Search strategies against the truth

AutoViT's Table 6 at a scale at which the truth is known: a supernet of {SPACE} trained for a minute on
scikit-learn's digits (1,797 images of 8 x 8), a part of that space with {len(archs)} architectures, all evaluated
with inherited weights on the search split ({evaluating_s:.0f} s, {usable_cores()} cores). The budget is the median
of their latency bounds on this machine; {len(within)} are within it, from {min(within):.2%} to {max(within):.2%}
accuracy, {sum(a == max(within) for a in within)} of them with the highest. All strategies evaluate the same number,
none twice. The first {SHOWN_SEEDS} seeds, and of {SEEDS} seeds how many ended with the highest accuracy, and how
far below it on average:

| evaluations | strategy | accuracy, seeds 0 to {SHOWN_SEEDS - 1} | core seconds | found the best | below it |
|---|---|---|---|---|---|
{chr(10).join(rows)}

{_default_against(below)}

Seconds are those of the search itself and of its evaluations at the mean time of one. The paper has 70.7 % for
evolution and 71.3 % for coarse-to-fine on ImageNet; so small a space and so easy a task can neither confirm nor
refute that difference."""


def _row(
    space: Space,
    price: LutPrice,
    known: _Known,
    budget: Budget,
    settings: SearchSettings,
    best: float,
    each_s: float,
) -> tuple[str, float]:
    """The row, and how far below the highest accuracy the strategy ends on average."""
    begun_s = time.process_time()
    runs = [
        search(space, price, known, budget, settings.model_copy(update={"seed": seed}))
        for seed in range(SEEDS)
    ]
    own_s = (time.process_time() - begun_s) / SEEDS
    if {len(run.evaluated) for run in runs} != {settings.evaluations}:
        raise AssertionError("a strategy did not evaluate as many as the others")
    found = np.array([run.winner.accuracy for run in runs])
    shown = ", ".join(f"{100 * accuracy:.2f}" for accuracy in found[:SHOWN_SEEDS])
    seconds = own_s + each_s * settings.evaluations
    below = float(best - found.mean())
    row = (
        f"| {settings.evaluations} | {settings.strategy} | {shown} | {seconds:.0f} | {np.mean(found == best):.0%} "
        f"| {100 * below:.2f} points |"
    )
    return row, below


def _default_against(below: Mapping[tuple[int, str], float]) -> str:
    """In words, by evaluations and strategy: at which budgets the default strategy loses to which other."""
    default = SearchSettings().strategy
    told: list[str] = []
    for other in STRATEGIES[::-1]:
        lost = [n for n, name in below if name == other and below[n, default] > below[n, other]]
        if lost:
            listed = ", ".join(map(str, lost[:-1])) + (" and " if lost[1:] else "") + str(lost[-1])
            told.append(f"than {other} at {listed}{'' if told else ' evaluations'}")
    if not told:
        return f"{default.capitalize()}, the default, is nowhere further below the best than another."
    return f"{default.capitalize()}, the default, is on average further below the best {', '.join(told)}."


def _evaluate(archs: Sequence[Arch], supernet: Path) -> _Known:
    from orchestrator.tasks.evaluate import open_evaluator

    fingerprint = open_evaluator(supernet).fingerprint
    with ProcessPool(ObjectiveOpener(INHERITED_ACCURACY, supernet), fingerprint, usable_cores()) as pool:
        cached = CachedEvaluator(pool, supernet / "accuracies.jsonl")
        return _Known(dict(zip(archs, cached.accuracies(archs), strict=True)), fingerprint)


if __name__ == "__main__":
    print(main())
