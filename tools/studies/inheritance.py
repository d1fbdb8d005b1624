"""Accuracy with inherited weights against training from scratch, and whether both rank networks alike."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence

import torch
from torch import nn

from orchestrator.report.draw import BLUE, MUTED
from search.algorithms.objectives import SmoothedEvaluator
from search.spaces import Arch
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.model.supernet import Supernet
from search.supernet.train.checkpoint import load_supernet
from tools.studies.shared import Options, resampled, tau
from tools.studies.trainings import SupernetStudy, Training, evaluators
from tools.tables import Rows, Tables, mean_and_range

NETWORKS = 20
SAMPLE, QUICK_SAMPLE = 100, 10
"""Random networks that the additive model is fitted to."""
LAYER_OUTPUTS = (".proj", ".fc2")
"""Last projections of the attention and of the MLP of a transformer layer."""


def main(options: Options) -> Tables:
    """Train supernets and every network alone; compare validation top-1 in percent."""
    study = SupernetStudy(options, NETWORKS)
    supernets = [study.training(seed) for seed in range(options.seeds)]
    longer, *inherited = study.accuracies([study.training(0, 2 * options.epochs), *supernets])
    alone = dict(zip(study.archs, study.alone_accuracies(study.archs), strict=True))
    rows = [
        {
            "network": number,
            "parameters": arch.params(),
            "MACs": arch.macs().conv_linear,
            "inherited": mean_and_range([each[arch] for each in inherited]),
            "from scratch": alone[arch],
        }
        for number, arch in enumerate(study.archs, 1)
    ]
    _draw(rows, options)
    doubled = [{"steps": 1, "mean top-1": statistics.fmean(inherited[0].values())}]
    doubled.append({"steps": 2, "mean top-1": statistics.fmean(longer.values())})
    trained = {"inherited": supernets[:1], "from scratch": [study.alone(arch) for arch in study.archs]}
    return {
        "Inherited accuracy against training from scratch": rows,
        "Kendall's tau with training from scratch": _ranks(study, supernets, inherited, alone),
        "Steps of the first supernet": doubled,
        "Without transformer layers": [_without_layers(study, name, each) for name, each in trained.items()],
    }


def _ranks(
    study: SupernetStudy,
    supernets: Sequence[Training],
    inherited: Sequence[dict[Arch, float]],
    alone: dict[Arch, float],
) -> Rows:
    """Return the rank correlation of every estimate of accuracy with that from scratch."""
    true = list(alone.values())
    means = [statistics.fmean(each[arch] for each in inherited) for arch in study.archs]
    rows = [{"by": "inherited top-1, mean of supernets", "tau": resampled(tau, means, true)}]
    for name, values in (
        ("parameters", [float(arch.params()) for arch in study.archs]),
        ("MACs", [float(arch.macs().conv_linear) for arch in study.archs]),
    ):
        rows.append({"by": name, "tau": resampled(tau, values, true)})
    by_seed = [list(each.values()) for each in inherited]
    for number, (a, b) in enumerate(itertools.combinations(by_seed, 2), 1):
        rows.append({"by": f"between supernets, pair {number}", "tau": resampled(tau, a, b)})
    for training in supernets:
        for name, values in _search_objectives(study, training).items():
            rows.append({"by": f"{name}, seed {training.recipe.seed}", "tau": resampled(tau, values, true)})
    return rows


def _search_objectives(study: SupernetStudy, training: Training) -> dict[str, list[float]]:
    """Return what a search would maximise, on the search split, for every network."""
    opened, rng = evaluators(training, study.options.on), random.Random("additive")
    count = QUICK_SAMPLE if study.options.quick else SAMPLE
    sample = [study.space.sample(rng) for _ in range(count)]
    smoothed = SmoothedEvaluator(opened.likelihood, sample, 0.5)
    return {
        "top-1": opened.top1.accuracies(study.archs),
        "likelihood": opened.likelihood.accuracies(study.archs),
        "likelihood, half additive": smoothed.accuracies(study.archs),
    }


def _without_layers(study: SupernetStudy, name: str, trainings: Sequence[Training]) -> dict[str, object]:
    """Return mean top-1 as trained, and with the outputs of transformer layers set to zero."""
    whole = Supernet(study.space)
    stages = [stage.name for stage in study.space.stages if layer_outputs(whole, f".{stage.name}_")]
    as_trained = [value for each in study.accuracies(trainings) for value in each.values()]
    row: dict[str, object] = {"weights": name, "as trained": statistics.fmean(as_trained)}
    row["without all"] = _zeroed_top1(study, trainings, "")
    return row | {f"without {stage}": _zeroed_top1(study, trainings, f".{stage}_") for stage in stages}


@torch.no_grad()
def _zeroed_top1(study: SupernetStudy, trainings: Sequence[Training], within: str) -> float:
    top1: list[float] = []
    for training in trainings:
        supernet, info = load_supernet(training.folder)
        for parameter in layer_outputs(supernet, within):
            parameter.zero_()
        evaluator = InheritedAccuracy(supernet, info, reopen_data(info, study.data), final=True)
        evaluator.move_to(study.options.on)
        top1 += [100 * evaluator.accuracy(arch) for arch in study.evaluated(training)]
    return statistics.fmean(top1)


def layer_outputs(network: nn.Module, within: str = "") -> list[nn.Parameter]:
    """Return weights and biases that write a transformer layer's output, of modules with `within` in their name."""
    return [
        parameter
        for name, parameter in network.named_parameters()
        if within in name and name.rpartition(".")[0].endswith(LAYER_OUTPUTS)
    ]


def _draw(rows: Rows, options: Options) -> None:
    with options.draw("inheritance", 430, 340) as (panel,):
        for row in rows:
            mean, low, high = row["inherited"]
            x = row["from scratch"]
            panel.plot([x, x], [low, high], color=MUTED, linewidth=1, zorder=1)
            panel.scatter([x], [mean], s=20 + 0.25e-3 * row["parameters"], color=BLUE, zorder=2)
            panel.annotate(str(row["network"]), (x, mean), (6, 4), textcoords="offset points", fontsize=9)
        title = "Area: parameters; line: range of seeds"
        panel.set(xlabel="from scratch, %", ylabel="inherited, %", title=title)
        panel.grid()
