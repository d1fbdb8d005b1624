"""What a search finds in the paper's own family against random networks of its latency, each trained alone."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from luts.format.store import load_lut
from search.algorithms import Budget
from search.algorithms.pricing.compiled import CompiledSpace
from search.algorithms.pricing.price import LutPrice
from search.spaces import Arch, Space
from tools.studies._judges import judges
from tools.studies._options import Options
from tools.studies._searches import searched, settings_of
from tools.studies._spreads import points, spread
from tools.studies._supernets import Supernets, Training, open_images

RANDOM, QUICK_RANDOM = 8, 2
NEAR = 0.03
"""Networks of the same latency are within this of the budget, below it."""
DRAWS = 2000


@dataclass(frozen=True)
class Priced:
    """A space and what a LUT says of it.

    Attributes:
        name: The LUT's.
        made_up: What is to be said of a simulated one.
    """

    space: Space
    price: LutPrice
    name: str
    made_up: str

    def latency_ms(self, archs: Sequence[Arch]) -> list[float]:
        """Predicted."""
        compiled = CompiledSpace(self.space, self.price)
        return [float(ms) for ms in compiled.price(compiled.encode(archs)).latency_ms[0]]


def main(options: Options) -> str:
    """Train supernets, search in each, train what was found and random networks alone; the section's text."""
    setup = Supernets(options)
    space = setup.space.with_classes(setup.images.classes)
    priced = _priced(space, options.lut)
    rng = random.Random("same latency")
    drawn = list(dict.fromkeys(space.sample(rng) for _ in range(DRAWS)))
    latencies = priced.latency_ms(drawn)
    budget_ms = statistics.median(latencies)
    near = [arch for arch, ms in zip(drawn, latencies, strict=True) if 1 - NEAR <= ms / budget_ms <= 1]
    same = near[: QUICK_RANDOM if options.quick else RANDOM]
    runs = [setup.run("none", seed) for seed in range(options.seeds)]
    setup.inherited(runs)
    found = [_winner(setup, run, priced, budget_ms) for run in runs]
    accuracy = dict(zip((*found, *same), setup.alone((*found, *same)), strict=True))
    again = [accuracy[same[0]], *(setup.alone(same[:1], seed)[0] for seed in range(1, options.seeds))]
    return section(priced, budget_ms, accuracy, found, same, again, setup)


def _winner(setup: Supernets, run: Training, priced: Priced, budget_ms: float) -> Arch:
    """Within the budget, by what a supernet says."""
    images = open_images(run.data)
    images.split = setup.images.split
    judge = judges(run, images, setup.options.on).likelihood
    settings = settings_of(setup.options.quick, run.recipe.seed)
    return searched(priced.space, priced.price, judge, Budget(latency_ms=budget_ms), settings)


def _priced(space: Space, lut: str) -> Priced:
    table = load_lut(lut)
    name = f"{table.meta.device.name}/{table.meta.space}/{table.meta.variant}"
    simulated = table.meta.measured == "simulated"
    made_up = "SIMULATED latencies, not measured on any device. " if simulated else ""
    return Priced(space, LutPrice(table.latency_model, table.meta.device.name, lut), name, made_up)


def section(
    priced: Priced,
    budget_ms: float,
    accuracy: dict[Arch, float],
    found: Sequence[Arch],
    same: Sequence[Arch],
    again: Sequence[float],
    setup: Supernets,
) -> str:
    """What was found, and how far networks of one latency differ at all."""
    latency = dict(zip(accuracy, priced.latency_ms(list(accuracy)), strict=True))
    rows = [
        f"| {what} | {arch.params() / 1e3:.0f} | {arch.macs().conv_linear / 1e6:.2f} | {latency[arch]:.4f} | "
        f"{100 * accuracy[arch]:.2f} |"
        for what, archs in (("found, seed {}", found), ("random {}", same))
        for what, arch in ((what.format(number), arch) for number, arch in enumerate(archs))
    ]
    random_ones = [accuracy[arch] for arch in same]
    gains = [100 * (accuracy[arch] - statistics.fmean(random_ones)) for arch in found]
    beaten = [sum(accuracy[arch] > other for other in random_ones) for arch in found]
    trainings = f"{100 * statistics.stdev(again):.2f} points" if len(again) > 1 else "unknown, of one seed"
    settings = settings_of(setup.options.quick)
    return f"""### What a search finds in the paper's own family

{priced.made_up}{setup.setting()}
Latency by {priced.name}, budget {budget_ms:.4f} ms, the median of {DRAWS} random networks; the random ones here are
within {NEAR:.0%} below it, the search holds it with 95 % confidence. It judges {settings.evaluations} networks by
`inherited-likelihood`, half of it by an additive model (`--additive 50%`) of {settings.sample} more. Every network
of the table was then trained alone, {setup.alone_setting()}, seed 0; top-1 on the validation images in percent.

| network | thousand parameters | M MACs | predicted ms | top-1 |
|---|---|---|---|---|
{chr(10).join(rows)}

What the searches found is {points(gains)} points (95 % over supernets) from the mean of the random networks
({spread(random_ones, 2)}), and better than {", ".join(map(str, beaten))} of {len(same)} of them.
The random networks have a standard deviation of {100 * statistics.stdev(random_ones):.2f} points, trainings of the
first of them with other seeds {trainings}.
"""
