"""How fast architectures are priced, what a space can reach, and which strategy finds the best (AutoViT's Table 6).

The last part trains a supernet on scikit-learn's digits and profiles `autovit-nano` on this machine; a part of that
space is evaluated entirely, so that the best network of every search is known.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from luts.format.latency import EntryCost, LatencyModel
from search.algorithms import CompiledSpace, Constraints, LutPrice, SearchSettings, latency_bounds, search
from search.algorithms.cost import ChannelLimits
from search.algorithms.feasible import FeasibleSet
from search.spaces import Arch, Space, Value, get_space
from search.supernet.inherit import open_inherited
from tools.benchmarks.shared import bench, lut_in
from tools.tables import Interval, Tables

SPACE = "autovit-nano"
BATCH = 1_000_000
PLAIN_BATCH = 2_000
ROUNDS = 15
SEEDS = 200
STRATEGIES = ("random", "evolution", "coarse-to-fine")
SCALES = tuple(
    SearchSettings(population=8, skeletons=4, generations=generations, parents=4, crossovers=4, mutations=4)
    for generations in (1, 2, 5)
)
"""16, 24 and 48 evaluations."""


def main() -> Tables:
    """Measure pricing, what a space can reach, and strategies where all accuracies are known."""
    nano, xxs = get_space(SPACE), get_space("autovit-xxs")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench(f"profile --device host --space {SPACE} --budget 1m --from none", home)
        bench(f"train --space {SPACE} --data digits --recipe demo -o {home}/supernet", home)
        lut = lut_in(home, f"host/{SPACE}")
        measured = LutPrice(lut.latency_model, lut.meta.reference_id)
        return {
            "Architectures priced in a second of one core": [
                *_pricing(nano, measured, "measured here"),
                *_pricing(xxs, synthetic(xxs), "synthetic"),
            ],
            **_reach(xxs),
            **_strategies(measured, home / "supernet"),
        }


def synthetic(space: Space) -> LutPrice:
    """Return entries for every block of a space: a nanosecond per MAC, plus or minus half, and 10 us each."""
    rng = random.Random(0)
    costs = {
        block.key: EntryCost(block.macs().total * 1e-6 * (0.5 + rng.random()) + 0.01, 0.005, False)
        for block in space.block_specs()
    }
    return LutPrice(LatencyModel(0.1, 0.05, costs, 0.05, 0.95), "synthetic")


def part_of_nano() -> Space:
    """Return 288 architectures that differ in widths, depths, heads, ratios and the number of stages."""
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


LATENCY, EVERYTHING, SUM, WHOLE = (
    "compiled, latency",
    "compiled, latency, bound, parameters, MACs and memory",
    "Python sum over a list of keys",
    "Python, keys from the architecture too",
)


def _pricing(space: Space, price: LutPrice, lut: str) -> list[dict[str, object]]:
    """Return architectures priced per second of processor time by each way, all taking turns in every round."""
    compiled = CompiledSpace(space, price)
    rng = random.Random(0)
    archs = [space.sample(rng) for _ in range(PLAIN_BATCH)]
    few = compiled.encode(archs)
    many = np.asfortranarray(few[np.random.default_rng(0).integers(0, len(few), BATCH)])
    entry_ms = {key: cost.ms for key, cost in price.model.costs.items()}
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
    return [
        {
            "space": space.name,
            "LUT": lut,
            "way": name,
            "a second": statistics.median(each),
            "over the sum of keys": median_ratio(each, rates[SUM]),
        }
        for name, each in rates.items()
    ]


def median_ratio(fast: Sequence[float], slow: Sequence[float]) -> Interval:
    """Return the median of the rounds' ratios with the 95 % interval of that median by resampling rounds."""
    ratios = np.array(fast) / np.array(slow)
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Interval(float(np.median(ratios)), float(low), float(high))


def _reach(space: Space) -> Tables:
    """Return the exact latencies and fronts of a space with a synthetic LUT, and uniform draws within budgets."""
    price = synthetic(space)
    begun_s = time.process_time()
    reach = latency_bounds(space, price, Constraints(latency_ms=1))
    reach_s = time.process_time() - begun_s
    compiled = CompiledSpace(space, price)
    least, most = reach.smallest.latency_high_ms, reach.largest.latency_high_ms
    draws = []
    for fraction in (0.01, 0.05, 0.2):
        limits = ChannelLimits.of(compiled, Constraints(latency_ms=least + fraction * (most - least)))
        begun_s = time.process_time()
        drawn = FeasibleSet(compiled, limits).sample(10_000, np.random.default_rng(0))
        seconds = time.process_time() - begun_s
        accepted = len(drawn.codes) / drawn.proposed
        within = FeasibleSet(compiled, limits).most * accepted / space.size()
        draws.append(
            {
                "budget ms": limits.largest[0],
                "fraction of the space": within,
                "draws accepted, %": 100 * accepted,
                "seconds for 10,000": seconds,
            }
        )
    whole = {
        "space": space.name,
        "architectures": float(space.size()),
        "smallest ms": least,
        "largest ms": most,
        "front of fewest parameters": len(reach.fewest_params),
        "of most parameters": len(reach.most_params),
        "of most MACs": len(reach.most_macs),
        "seconds": reach_s,
    }
    return {"What a space can reach": [whole], "Uniform draws within a budget": draws}


class _Known:
    """Accuracies that were evaluated before, as an evaluator."""

    def __init__(self, accuracies: dict[Arch, float]):
        self.known, self.fingerprint = accuracies, "known"

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        return [self.known[arch] for arch in archs]


def _strategies(price: LutPrice, supernet: Path) -> Tables:
    """Return how often strategies find the best of 144 networks within a budget, after equally many evaluations."""
    space = part_of_nano()
    archs = list(space)
    objective = open_inherited(supernet)
    known = _Known({arch: objective.accuracy(arch) for arch in archs})
    compiled = CompiledSpace(space, price)
    bounds = compiled.price(compiled.encode(archs)).latency_high_ms[0]
    budget = Constraints(latency_ms=float(np.median(bounds)))
    within = [known.known[arch] for arch, ms in zip(archs, bounds, strict=True) if ms <= budget.latency_ms]
    rows = []
    for settings in SCALES:
        for strategy in STRATEGIES:
            found = np.array(
                [
                    search(
                        space,
                        price,
                        known,
                        budget,
                        settings.model_copy(update={"strategy": strategy, "seed": seed}),
                    ).winner.accuracy
                    for seed in range(SEEDS)
                ]
            )
            rows.append(
                {
                    "evaluations": settings.evaluations,
                    "strategy": strategy,
                    "mean of seeds, %": 100 * found.mean(),
                    "found the best, %": 100 * float(np.mean(found == max(within))),
                    "below it, points": 100 * float(max(within) - found.mean()),
                }
            )
    truth = {"networks within": len(within), "lowest, %": 100 * min(within), "highest, %": 100 * max(within)}
    return {"Strategies on a part of autovit-nano": rows, "Its truth": [truth]}
