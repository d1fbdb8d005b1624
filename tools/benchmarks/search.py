"""How fast architectures are priced, and what a space can reach."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from luts.format.latency import EntryCost, LatencyModel
from search.algorithms import CompiledSpace, Constraints, LutPrice, latency_bounds
from search.algorithms.feasible import ChannelLimits, FeasibleSet
from search.spaces import Space, get_space
from tools.benchmarks.shared import bench, lut_in
from tools.tables import Rows, Tables, resampled

SPACE = "autovit-nano"
BATCH, PLAIN_BATCH = 1_000_000, 2_000
"""Architectures that are priced together, compiled and in plain Python."""
ROUNDS = 15
DRAWS = 10_000


def main() -> Tables:
    """Measure pricing with a LUT of this machine and with a synthetic one, and what the larger space can reach."""
    nano, xxs = get_space(SPACE), get_space("autovit-xxs")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench(f"profile --device host --space {SPACE} --budget 1m --from none", home)
        lut = lut_in(home, f"host/{SPACE}")
    measured = LutPrice(lut.latency_model, lut.meta.reference_id)
    return {
        "Architectures priced in a second of one core": [
            *pricing(nano, measured),
            *pricing(xxs, synthetic(xxs)),
        ],
        **reach(xxs),
    }


def synthetic(space: Space) -> LutPrice:
    """Return entries for every block of a space: a nanosecond per MAC, plus or minus half, and 10 us each."""
    rng = random.Random(0)
    costs = {
        block.key: EntryCost(block.macs().total * 1e-6 * (0.5 + rng.random()) + 0.01, 0.005, False)
        for block in space.block_specs()
    }
    return LutPrice(LatencyModel(0.1, 0.05, costs, 0.05, 0.95), "synthetic")


def pricing(space: Space, price: LutPrice) -> Rows:
    """Return architectures priced per second of processor time by each way, all taking turns in every round."""
    compiled = CompiledSpace(space, price)
    rng = random.Random(0)
    archs = [space.sample(rng) for _ in range(PLAIN_BATCH)]
    few = compiled.encode(archs)
    many = np.asfortranarray(few[np.random.default_rng(0).integers(0, len(few), BATCH)])
    entry_ms = {key: cost.ms for key, cost in price.model.costs.items()}
    keys = [arch.keys() for arch in archs]
    plain = "Python sum over a list of keys"
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "compiled, latency": (BATCH, lambda: compiled.channel(many)),
        "compiled, latency, bound, parameters, MACs and memory": (BATCH, lambda: compiled.price(many)),
        plain: (PLAIN_BATCH, lambda: [sum(entry_ms[key] for key in row) for row in keys]),
        "Python, keys from the architecture too": (
            PLAIN_BATCH,
            lambda: [sum(entry_ms[key] for key in arch.keys()) for arch in archs],
        ),
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
            "way": name,
            "a second": statistics.median(each),
            "over the sum of keys": resampled(lambda a, b: float(np.median(a / b)), each, rates[plain]),
        }
        for name, each in rates.items()
    ]


def reach(space: Space) -> Tables:
    """Return the exact latencies and fronts of a space with a synthetic LUT, and uniform draws within budgets."""
    price = synthetic(space)
    begun_s = time.process_time()
    bounds = latency_bounds(space, price, Constraints(latency_ms=1))
    reach_s = time.process_time() - begun_s
    compiled = CompiledSpace(space, price)
    least, most = bounds.smallest.latency_high_ms, bounds.largest.latency_high_ms
    draws = []
    for fraction in (0.01, 0.05, 0.2):
        limits = ChannelLimits.of(compiled, Constraints(latency_ms=least + fraction * (most - least)))
        begun_s = time.process_time()
        drawn = FeasibleSet(compiled, limits).sample(DRAWS, np.random.default_rng(0))
        seconds = time.process_time() - begun_s
        within = FeasibleSet(compiled, limits).most * len(drawn.codes) / drawn.proposed / space.size()
        row = {"budget ms": limits.largest[0], "fraction of the space": within, f"s for {DRAWS:,}": seconds}
        draws.append(row)
    whole = {
        "space": space.name,
        "architectures": float(space.size()),
        "smallest ms": least,
        "largest ms": most,
        "seconds": reach_s,
    }
    return {"What a space can reach": [whole], "Uniform draws within a budget": draws}
