"""How fast architectures are priced, what a space can reach, which strategy is best, hybrid or attention only.

Supernets are trained on scikit-learn's digits and `autovit-nano` is profiled on this machine. A part of that space
is evaluated entirely, so that the best network of every search is known (AutoViT's Table 6). Two restrictions of
the space are searched with equally many evaluations (AutoViT, section 5.3): `transformer-only` has its
convolutional stages at their smallest, `hybrid` has two MBConv blocks of any width before the transformers.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.format.latency import EntryCost, LatencyModel
from orchestrator.agent.device import usable_cores
from search.algorithms import (
    INHERITED_ACCURACY,
    CachedEvaluator,
    CompiledSpace,
    Constraints,
    LutPrice,
    ObjectiveOpener,
    SearchSettings,
    latency_bounds,
    search,
)
from search.algorithms.cost import ChannelLimits
from search.algorithms.evaluation import ProcessPool
from search.algorithms.feasible import FeasibleSet
from search.blocks import parse_key
from search.spaces import Arch, Space, Value, get_space
from search.supernet.inherit import InheritedAccuracy, open_inherited, reopen_data
from search.supernet.train.checkpoint import load_supernet
from tools.benchmarks.shared import bench, lut_in
from tools.tables import Interval, Tables, mean_and_range, resampled

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


def compare_strategies() -> Tables:
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
    return restricted(
        get_space(SPACE),
        {
            "mbconv1": {"width": (24,)},
            "transformer1": {"heads": (2,)},
            "transformer2": {"mlp_ratio": (2.0,)},
        },
    )


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
    return resampled(lambda a, b: float(np.median(a / b)), fast, slow)


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


HYBRID_PROFILE = "--removals none --design 16 --heldout 20 --budget 45s"
SUPERNET_SEEDS = (0, 1)
TRAIN = f"train --space {SPACE} --data digits --recipe demo --epochs 10"
SHARES = (0.1, 0.4, 0.7)
"""Positions of the budgets between the smallest and the largest latency that both restrictions can have."""

SETTINGS = SearchSettings(
    strategy="evolution", population=12, generations=2, parents=5, crossovers=6, mutations=6
)

ATTENTION = "transformer-only"
HYBRID = "hybrid"
RESTRICTIONS: Mapping[str, Mapping[str, Mapping[str, tuple[Value, ...]]]] = {
    ATTENTION: {"stem": {"width": (8,)}, "mbconv1": {"width": (16,), "depth": (1,)}},
    HYBRID: {"mbconv1": {"depth": (2,)}},
}
"""Choices that a restriction leaves, by stage; other choices remain."""


@dataclass(frozen=True)
class Winner:
    """The best of a restriction within a budget, in one supernet; accuracies 0 to 1."""

    arch: Arch
    latency_ms: float
    search_accuracy: float
    validation_accuracy: float


def restricted(space: Space, choices: Mapping[str, Mapping[str, tuple[Value, ...]]]) -> Space:
    """Return the part of a space with these choices."""
    stages = tuple(
        dataclasses.replace(
            stage,
            choices=tuple(
                (name, choices.get(stage.name, {}).get(name, values)) for name, values in stage.choices
            ),
        )
        for stage in space.stages
    )
    return dataclasses.replace(space, stages=stages)


def compare_hybrid() -> Tables:
    """Search both restrictions within three latencies in supernets of two seeds, and measure the winners.

    Accuracies are means over the supernets; latencies are of the first supernet's winners.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench(f"profile --device host --space {SPACE} --threads 1 {HYBRID_PROFILE}", home)
        price = LutPrice(lut_in(home, f"host/{SPACE}").latency_model, SPACE)
        supernets = [home / f"supernet{seed}" for seed in SUPERNET_SEEDS]
        for seed, supernet in zip(SUPERNET_SEEDS, supernets, strict=True):
            bench(f"{TRAIN} --seed {seed} -o {supernet}")
        parts = {name: restricted(get_space(SPACE), choices) for name, choices in RESTRICTIONS.items()}
        budgets_ms = _budgets(parts, price)
        found = {
            (budget_ms, name): winners
            for name, part in parts.items()
            for budget_ms, *winners in zip(
                budgets_ms,
                *(_search_restriction(part, price, each, budgets_ms) for each in supernets),
                strict=True,
            )
        }
        measured_ms = _measure(home, [winners[0].arch for winners in found.values()])
    rows = [
        {
            "budget ms": budget_ms,
            "restriction": name,
            "architectures": parts[name].size(),
            "predicted ms": winners[0].latency_ms,
            "measured ms": measured_ms[winners[0].arch],
            "search, %": 100 * statistics.mean(winner.search_accuracy for winner in winners),
            "validation, %": 100 * statistics.mean(winner.validation_accuracy for winner in winners),
            "MACs in attention layers, %": 100 * statistics.mean(attention_fraction(w.arch) for w in winners),
        }
        for (budget_ms, name), winners in sorted(found.items(), key=lambda item: item[0])
    ]
    gains = [
        100 * (hybrid.validation_accuracy - attention.validation_accuracy)
        for budget_ms in budgets_ms
        for hybrid, attention in zip(found[budget_ms, HYBRID], found[budget_ms, ATTENTION], strict=True)
    ]
    return {"Hybrid and transformer-only": rows, "Gain of hybrid": [{"points": mean_and_range(gains)}]}


def _budgets(parts: Mapping[str, Space], price: LutPrice) -> list[float]:
    """Return latencies that every restriction can reach and none can exceed entirely."""
    reach = [
        latency_bounds(part, price, Constraints(latency_ms=1, cautious=False)) for part in parts.values()
    ]
    low = max(found.smallest.latency_ms for found in reach)
    high = min(found.largest.latency_ms for found in reach)
    return [low + share * (high - low) for share in SHARES]


def _search_restriction(
    part: Space, price: LutPrice, checkpoint: Path, budgets_ms: list[float]
) -> list[Winner]:
    """Return the winner within each budget."""
    supernet, info = load_supernet(checkpoint)
    data = reopen_data(info)
    judge = InheritedAccuracy(supernet, info, data)
    final = InheritedAccuracy(supernet, info, data, final=True)
    winners = []
    with ProcessPool(
        ObjectiveOpener(INHERITED_ACCURACY, checkpoint), judge.fingerprint, usable_cores()
    ) as pool:
        cached = CachedEvaluator(pool, checkpoint / "accuracies.jsonl")
        for budget_ms in budgets_ms:
            budget = Constraints(latency_ms=budget_ms, cautious=False)
            best = search(part, price, cached, budget, SETTINGS).winner
            arch = best.architecture()
            winners.append(Winner(arch, best.latency_ms, best.accuracy, final.accuracy(arch)))
    return winners


def _measure(home: Path, archs: list[Arch]) -> dict[Arch, float]:
    """Return milliseconds of each, all interleaved in one measurement."""
    files = {home / f"{arch.digest}.json": arch for arch in archs}
    for file, arch in files.items():
        file.write_text(arch.to_json(), encoding="utf-8")
    named = " ".join(f"--arch {file}" for file in files)
    printed = bench(f"measure --device host --threads 1 --budget 45s --json {named}", home)
    return {files[Path(row["model"])]: row["ms"] for row in json.loads(printed)["models"]}


def attention_fraction(arch: Arch) -> float:
    """Return the fraction of all MACs that transformer layers do."""
    macs = [(key, parse_key(key).macs().total) for key in arch.keys()]
    return sum(count for key, count in macs if key.startswith("mvit.layer")) / sum(count for _, count in macs)
