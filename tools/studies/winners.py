"""What a search finds in the paper's own family against random networks of its latency, each trained alone."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
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

HELD = {"at the budget": False, "with 95 % confidence": True}
"""How a search holds the budget: by the prediction (`--point`), as the random networks do, or as by default."""


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
    within = [(arch, ms) for arch, ms in zip(drawn, latencies, strict=True) if ms <= budget_ms]
    near = [arch for arch, ms in within if ms >= (1 - NEAR) * budget_ms]
    largest = max((arch for arch, _ in within), key=lambda arch: arch.macs().conv_linear)
    same = near[: QUICK_RANDOM if options.quick else RANDOM]
    runs = [setup.run("none", seed) for seed in range(options.seeds)]
    setup.inherited(runs)
    found = {
        held: [_winner(setup, run, priced, Budget(latency_ms=budget_ms, cautious=cautious)) for run in runs]
        for held, cautious in HELD.items()
    }
    trained = list(dict.fromkeys([*itertools.chain(*found.values()), *same, largest]))
    accuracy = dict(zip(trained, setup.alone(trained), strict=True))
    again = [accuracy[same[0]], *(setup.alone(same[:1], seed)[0] for seed in range(1, options.seeds))]
    named = {f"found {held}, seed": archs for held, archs in found.items()} | {
        "random": same,
        "largest": [largest],
    }
    return section(priced, budget_ms, accuracy, named, again, setup)


def _winner(setup: Supernets, run: Training, priced: Priced, budget: Budget) -> Arch:
    """Within the budget, by what a supernet says."""
    images = open_images(run.data)
    images.split = setup.images.split
    judge = judges(run, images, setup.options.on).likelihood
    settings = settings_of(setup.options.quick, run.recipe.seed)
    return searched(priced.space, priced.price, judge, budget, settings)


def _priced(space: Space, lut: str) -> Priced:
    table = load_lut(lut)
    name = f"{table.meta.device.name}/{table.meta.space}/{table.meta.variant}"
    simulated = table.meta.measured == "simulated"
    made_up = "SIMULATED latencies, not measured on any device. " if simulated else ""
    return Priced(space, LutPrice(table.latency_model, table.meta.device.name, lut), name, made_up)


def section(
    priced: Priced,
    budget_ms: float,
    accuracy: Mapping[Arch, float],
    named: Mapping[str, Sequence[Arch]],
    again: Sequence[float],
    setup: Supernets,
) -> str:
    """What was found, and how far networks of one latency differ at all."""
    latency = dict(zip(accuracy, priced.latency_ms(list(accuracy)), strict=True))
    rows = [
        f"| {what} {number} | {arch.params() / 1e3:.0f} | {arch.macs().conv_linear / 1e6:.2f} | "
        f"{latency[arch] / budget_ms:.3f} | {100 * accuracy[arch]:.2f} |"
        for what, archs in named.items()
        for number, arch in enumerate(archs)
    ]
    random_ones = [accuracy[arch] for arch in named["random"]]
    told = [_told(what, archs, accuracy, random_ones) for what, archs in named.items() if what != "random"]
    trainings = f"{100 * statistics.stdev(again):.2f} points" if len(again) > 1 else "unknown, of one seed"
    settings = settings_of(setup.options.quick)
    return f"""### What a search finds in the paper's own family

{priced.made_up}{setup.setting()}
Latency by {priced.name}, budget {budget_ms:.4f} ms, the median of {DRAWS} random networks; the random ones here are
within {NEAR:.0%} below it, the largest has the most MACs of all drawn that are below. A search holds the budget by
the prediction (`--point`), as the random ones do, or with 95 % confidence, its default, which leaves its networks
faster than they are. It judges {settings.evaluations} networks by `inherited-likelihood`, half of it by an additive
model (`--additive 50%`) of {settings.sample} more. Every network of the table was then trained alone,
{setup.alone_setting()}, seed 0; top-1 on the validation images in percent.

| network | thousand parameters | M MACs | predicted, of the budget | top-1 |
|---|---|---|---|---|
{chr(10).join(rows)}

{chr(10).join(told)}
The random networks have a standard deviation of {100 * statistics.stdev(random_ones):.2f} points, trainings of the
first of them with other seeds {trainings}.
"""


def _told(what: str, archs: Sequence[Arch], accuracy: Mapping[Arch, float], others: Sequence[float]) -> str:
    gains = [100 * (accuracy[arch] - statistics.fmean(others)) for arch in archs]
    beaten = ", ".join(str(sum(accuracy[arch] > other for other in others)) for arch in archs)
    replicated = " (95 % over supernets)" if len(gains) > 1 else ""
    return (
        f"{what.removesuffix(', seed').capitalize()}: {points(gains)} points{replicated} from the mean of the "
        f"random networks ({spread(others, 2)}), better than {beaten} of {len(others)} of them."
    )
