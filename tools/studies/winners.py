"""What a search finds in AutoViT's own family against random networks of its latency, each trained alone."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from luts.format.store import load_lut
from search.algorithms import CompiledSpace, Constraints, LutPrice, SearchSettings, search
from search.algorithms.objectives import MacsObjective
from search.spaces import Arch
from tools.studies.shared import Options, resampled, tau
from tools.studies.trainings import SupernetStudy, evaluators
from tools.tables import Rows, Tables, mean_and_range

RANDOM, QUICK_RANDOM = 8, 2
NEAR = 0.03
"""Random networks have a latency of the budget or up to 3 % below."""
DRAWS = 2000
SETTINGS = SearchSettings(generations=2, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=2, generations=0, draws=100, additive=0.5, sample=10)
LARGEST = SearchSettings(strategy="largest", population=1, generations=0)
HELD = {"at the budget": False, "with 95 % confidence": True}
"""How a search holds the budget: by the prediction (`--point`), or with confidence, the default."""


def main(options: Options) -> Tables:
    """Train supernets, search in each, train what was found and random networks alone (top-1 in percent)."""
    study = SupernetStudy(options)
    lut = load_lut(options.lut)
    price = LutPrice(lut.latency_model, lut.meta.device.name, options.lut)
    drawn = _drawn(study)
    latencies = latencies_ms(study, price, drawn)
    budget_ms = statistics.median(latencies)
    near = [arch for arch, ms in zip(drawn, latencies, strict=True) if 1 - NEAR <= ms / budget_ms <= 1]
    supernets = [study.training(seed) for seed in range(options.seeds)]
    study.accuracies(supernets)
    objectives = [evaluators(each, options.on).likelihood for each in supernets]
    settings = QUICK_SETTINGS if options.quick else SETTINGS
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
    named["random"] = near[: QUICK_RANDOM if options.quick else RANDOM]
    archs = list(dict.fromkeys(arch for each in named.values() for arch in each))
    top1 = dict(zip(archs, study.alone_accuracies(archs), strict=True))
    likelihoods = [dict(zip(archs, each.accuracies(archs), strict=True)) for each in objectives]
    latency = dict(zip(archs, latencies_ms(study, price, archs), strict=True))
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
    return {
        "Winners against random networks": rows,
        "Differences to the random networks": differences(named, top1),
        "Standard deviation of top-1": [
            {"of": "random networks", "points": statistics.stdev(of_random)},
            {"of": "trainings of one network", "points": statistics.stdev(again) if again[1:] else None},
        ],
        "Kendall's tau with top-1, random networks": [
            {
                "by": f"likelihood, seed {seed}",
                "tau": resampled(tau, [each[a] for a in named["random"]], of_random),
            }
            for seed, each in enumerate(likelihoods)
        ]
        + [
            {
                "by": "MACs",
                "tau": resampled(tau, [arch.macs().conv_linear for arch in named["random"]], of_random),
            }
        ],
    }


def differences(named: dict[str, list[Arch]], top1: dict[Arch, float]) -> Rows:
    """Return the difference of each kind of network to the mean of the random ones, and how many it beats."""
    of_random = [top1[arch] for arch in named["random"]]
    mean = statistics.fmean(of_random)
    return [
        {
            "network": name,
            "points": mean_and_range([top1[arch] - mean for arch in archs]),
            "better than": ", ".join(str(sum(top1[arch] > other for other in of_random)) for arch in archs),
            "of random networks": len(of_random),
        }
        for name, archs in named.items()
        if name != "random"
    ]


def latencies_ms(study: SupernetStudy, price: LutPrice, archs: Sequence[Arch]) -> list[float]:
    """Return predicted latencies in milliseconds."""
    compiled = CompiledSpace(study.space, price)
    return [float(ms) for ms in compiled.price(compiled.encode(archs)).latency_ms[0]]


def _drawn(study: SupernetStudy) -> list[Arch]:
    rng = random.Random("same latency")
    return list(dict.fromkeys(study.space.sample(rng) for _ in range(DRAWS)))
