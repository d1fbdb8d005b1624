"""What a search finds in the paper's own family against random networks of its latency, each trained alone."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luts.format.store import load_lut
from search.algorithms import Budget
from search.algorithms.cost import CompiledSpace, LutPrice
from search.algorithms.study import largest_within
from search.spaces import Arch, Space
from tools.studies._judges import Judges, judges
from tools.studies._options import Options
from tools.studies._ranks import tau
from tools.studies._searches import searched, settings_of
from tools.studies._spreads import points, spread
from tools.studies._supernets import Supernets, Training, open_images

RANDOM, QUICK_RANDOM = 8, 2
RANDOM_ONES = "random {}"
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
    near = [arch for arch, ms in zip(drawn, latencies, strict=True) if 1 - NEAR <= ms / budget_ms <= 1]
    runs = [setup.run("none", seed) for seed in range(options.seeds)]
    setup.inherited(runs)
    said = [_judges(setup, run) for run in runs]
    named: dict[str, Sequence[Arch]] = {}
    for held, cautious in HELD.items():
        budget = Budget(latency_ms=budget_ms, cautious=cautious)
        named[f"found {held}, seed {{}}"] = [
            searched(
                space, priced.price, each.likelihood, budget, settings_of(options.quick, run.recipe.seed)
            )
            for run, each in zip(runs, said, strict=True)
        ]
        named[f"largest {held}"] = [largest_within(space, priced.price, budget, 1).networks[0].architecture()]
    named[RANDOM_ONES] = same = near[: QUICK_RANDOM if options.quick else RANDOM]
    trained = list(dict.fromkeys(itertools.chain(*named.values())))
    accuracy = dict(zip(trained, setup.alone(trained), strict=True))
    again = [accuracy[same[0]], *(setup.alone(same[:1], seed)[0] for seed in range(1, options.seeds))]
    inherited = [dict(zip(trained, each.likelihood.accuracies(trained), strict=True)) for each in said]
    return section(priced, budget_ms, accuracy, inherited, named, again, setup)


def _judges(setup: Supernets, run: Training) -> Judges:
    """What a supernet says of networks, on the images that training holds out for a search."""
    images = open_images(run.data)
    images.split = setup.images.split
    return judges(run, images, setup.options.on)


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
    inherited: Sequence[Mapping[Arch, float]],
    named: Mapping[str, Sequence[Arch]],
    again: Sequence[float],
    setup: Supernets,
) -> str:
    """What was found, and how far networks of one latency differ at all.

    Args:
        accuracy: Of every network trained alone.
        inherited: Its likelihood, as each supernet says.
        named: The networks of the table, by what they are called.
        again: Accuracies of one network, trained with several seeds.
    """
    latency = dict(zip(accuracy, priced.latency_ms(list(accuracy)), strict=True))
    rows = [
        f"| {what.format(number)} | {arch.params() / 1e3:.0f} | {arch.macs().conv_linear / 1e6:.2f} | "
        f"{latency[arch] / budget_ms:.3f} | {', '.join(f'{each[arch]:.4f}' for each in inherited)} | "
        f"{100 * accuracy[arch]:.2f} |"
        for what, archs in named.items()
        for number, arch in enumerate(archs)
    ]
    same = named[RANDOM_ONES]
    random_ones = [accuracy[arch] for arch in same]
    ranked = [tau([each[arch] for arch in same], random_ones) for each in inherited]
    by_macs = tau([arch.macs().conv_linear for arch in same], random_ones)
    told = [_told(what, archs, accuracy, random_ones) for what, archs in named.items() if what != RANDOM_ONES]
    trainings = f"{100 * statistics.stdev(again):.2f} points" if len(again) > 1 else "unknown, of one seed"
    settings = settings_of(setup.options.quick)
    return f"""### What a search finds in the paper's own family

{priced.made_up}{setup.setting()}
Latency by {priced.name}, budget {budget_ms:.4f} ms, the median of {DRAWS} random networks; the random ones here are
within {NEAR:.0%} below it. The budget is held by the prediction (`--point`), as the random ones do, or with 95 %
confidence, the default of a search, which leaves its networks faster than they are. A search judges
{settings.evaluations} networks by `inherited-likelihood`, half of it by an additive model (`--additive 50%`) of
{settings.sample} more; the largest has the most MACs within the budget, with nothing trained (`bench search`
without a supernet). Every network of the table was then trained alone, {setup.alone_setting()}, seed 0; top-1 on
the validation images in percent. Likelihood: of each supernet.

| network | thousand parameters | M MACs | predicted, of the budget | likelihood | top-1 |
|---|---|---|---|---|---|
{chr(10).join(rows)}

{chr(10).join(told)}
The random networks have a standard deviation of {100 * statistics.stdev(random_ones):.2f} points, trainings of the
first of them with other seeds {trainings}. Over the random networks Kendall's tau with top-1 is
{", ".join(f"{each:.2f}" for each in ranked)} for the likelihood of each supernet, {by_macs:.2f} for MACs.
"""


def _told(what: str, archs: Sequence[Arch], accuracy: Mapping[Arch, float], others: Sequence[float]) -> str:
    gains = [100 * (accuracy[arch] - statistics.fmean(others)) for arch in archs]
    beaten = ", ".join(str(sum(accuracy[arch] > other for other in others)) for arch in archs)
    replicated = " (95 % over supernets, one training of each network)" if len(gains) > 1 else ""
    return (
        f"{what.partition(',')[0].capitalize()}: {points(gains)} points{replicated} from the mean of the "
        f"random networks ({spread(others, 2)}), better than {beaten} of {len(others)} of them."
    )
