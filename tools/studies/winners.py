"""What searches in supernets of AutoViT's space find, against the largest and against random networks."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence

from luts.format.store import load_lut
from search.algorithms import CompiledSpace, Constraints, LutPrice, SearchSettings, search
from search.algorithms.objectives import MacsObjective
from search.spaces import Arch
from tools.studies.shared import Options
from tools.studies.trainings import SupernetStudy
from tools.tables import Rows, Tables, mean_and_range, resampled, tau

NEAR = 0.03
"""Random networks have a latency of the budget or up to 3 % below."""
DRAWS = 2000
SETTINGS = SearchSettings(generations=2, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=2, generations=0, draws=100, additive=0.5, sample=10)
LARGEST = SearchSettings(strategy="largest", population=1, generations=0)
HELD = {"at the budget": False, "with 95 % confidence": True}
"""How a search holds the budget: by the prediction (`--point`), or with confidence, the default."""


def compare_winners(options: Options) -> Tables:
    """Train supernets, search in each, train what was found and random networks alone (top-1 in percent)."""
    study, lut = SupernetStudy(options), load_lut(options.lut)
    price = LutPrice(lut.latency_model, lut.meta.device.name, options.lut)
    compiled, rng = CompiledSpace(study.space, price), random.Random("same latency")
    drawn = list(dict.fromkeys(study.space.sample(rng) for _ in range(DRAWS)))
    latency = latencies_ms(compiled, drawn)
    budget_ms = statistics.median(latency.values())
    supernets = [study.training(seed) for seed in range(options.seeds)]
    study.accuracies(supernets)
    objectives = [each.evaluators(options.on).likelihood for each in supernets]
    settings = options.pick(SETTINGS, QUICK_SETTINGS)
    named: dict[str, list[Arch]] = {}
    for held, cautious in HELD.items():
        budget = Constraints(latency_ms=budget_ms, cautious=cautious)
        named[f"found {held}"] = [
            search(
                study.space, price, objective, budget, settings.model_copy(update={"seed": seed})
            ).winner.architecture()
            for seed, objective in enumerate(objectives)
        ]
        largest = search(study.space, price, MacsObjective(), budget, LARGEST).winner.architecture()
        named[f"largest {held}"] = [largest]
    near = [arch for arch, ms in latency.items() if 1 - NEAR <= ms / budget_ms <= 1]
    named["random"] = near[: options.pick(8, 2)]
    archs = list(dict.fromkeys(arch for each in named.values() for arch in each))
    top1 = dict(zip(archs, study.alone_accuracies(archs), strict=True))
    likelihoods = [dict(zip(archs, each.accuracies(archs), strict=True)) for each in objectives]
    latency |= latencies_ms(compiled, archs)
    rows = [
        {
            "network": name,
            "number": number,
            "parameters": arch.params(),
            "MACs": arch.macs().conv_linear,
            "predicted, of the budget": latency[arch] / budget_ms,
            "likelihood": mean_and_range([each[arch] for each in likelihoods]),
            "top-1": top1[arch],
        }
        for name, each in named.items()
        for number, arch in enumerate(each)
    ]
    again = [study.alone_accuracies(named["random"][:1], seed)[0] for seed in range(options.seeds)]
    of_random = [top1[arch] for arch in named["random"]]
    estimates = {
        f"likelihood, seed {seed}": [each[arch] for arch in named["random"]]
        for seed, each in enumerate(likelihoods)
    }
    estimates["MACs"] = [arch.macs().conv_linear for arch in named["random"]]
    return {
        "Winners against random networks": rows,
        "Differences to the random networks": _differences(named, top1),
        "Standard deviation of top-1": [
            {"of": "random networks", "points": statistics.stdev(of_random)},
            {"of": "trainings of one network", "points": statistics.stdev(again) if again[1:] else None},
        ],
        "Kendall's tau with top-1, random networks": [
            {"by": name, "tau": resampled(tau, values, of_random)} for name, values in estimates.items()
        ],
    }


def latencies_ms(compiled: CompiledSpace, archs: Sequence[Arch]) -> dict[Arch, float]:
    """Return predicted latencies in milliseconds."""
    latency_ms = compiled.price(compiled.encode(archs)).latency_ms[0]
    return dict(zip(archs, latency_ms.tolist(), strict=True))


def _differences(named: Mapping[str, Sequence[Arch]], top1: Mapping[Arch, float]) -> Rows:
    """Return the difference of each kind of network to the mean of the random ones."""
    mean = statistics.fmean(top1[arch] for arch in named["random"])
    return [
        {"network": name, "points": mean_and_range([top1[arch] - mean for arch in archs])}
        for name, archs in named.items()
        if name != "random"
    ]
