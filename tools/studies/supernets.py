"""Supernets of AutoViT's space: distillation, ranges of sizes, inherited accuracy."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from orchestrator.report.draw import BLUE, MUTED
from search.algorithms.objectives import SmoothedEvaluator
from search.spaces import Arch
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.recipe import changed
from search.supernet.train.checkpoint import load_supernet
from tools.studies.shared import Options
from tools.studies.trainings import TEACHER, SupernetStudy, Training, trained_teacher
from tools.tables import Rows, Tables, mean_and_range, resampled, tau

PAPER_TOP1 = {"none": 64.6, "soft": 70.5, "hard": 71.3}
"""Table 4: ImageNet, with RegNetY-32G as the teacher."""


def compare_teachers(options: Options) -> Tables:
    """Compare inherited validation top-1 in percent over seeds; gains are paired by seed.

    Augmentation repeats every second epoch with all three kinds, so that stored teacher labels can be reused.
    """
    study = SupernetStudy(options)
    teacher, teacher_top1 = trained_teacher(options)
    rows: list[dict[str, object]] = []
    none_means: list[float] = []
    for kind, paper in PAPER_TOP1.items():  # in this order: "hard" reuses the labels that "soft" stores
        accuracies = study.accuracies(
            [_distilled(study, kind, teacher, seed) for seed in range(options.seeds)]
        )
        means = _seed_means(accuracies, study.archs)
        none_means = none_means or means
        rows.append(
            {
                "distillation": kind,
                f"mean of {len(study.archs)} networks": mean_and_range(means),
                "gain": mean_and_range(_paired(means, none_means)),
                "largest network": mean_and_range([each[study.archs[-1]] for each in accuracies]),
                "paper, ImageNet": paper,
            }
        )
    return {"Distillation": rows, "Teacher": [{"network": TEACHER, "top-1, %": teacher_top1}]}


def _distilled(study: SupernetStudy, kind: str, teacher: str, seed: int) -> Training:
    training = study.training(seed, augmentation_epochs=2)
    recipe = changed(training.recipe, {}, {"kind": kind, "alpha": 0.5, "tau": 1.0})
    return replace(training, recipe=recipe, teacher=None if kind == "none" else teacher)


def _seed_means(accuracies: Sequence[Mapping[Arch, float]], archs: Sequence[Arch]) -> list[float]:
    """Return the mean over networks, for each seed."""
    return [statistics.fmean(each[arch] for arch in archs) for each in accuracies]


def _paired(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, base, strict=True)]


def compare_ranges(options: Options) -> Tables:
    """Compare, for each range of sizes, one supernet, one with three times the steps, and the range's own.

    Inherited validation top-1 in percent, mean over the networks of a range, smallest and largest over seeds. Each
    range's own supernet has as many steps as the first; the three together have as many as the second.
    """
    study, seeds = SupernetStudy(options), range(options.seeds)
    one = study.accuracies([study.training(seed) for seed in seeds])
    longer = study.accuracies([study.training(seed, len(study.ranges) * options.epochs) for seed in seeds])
    rows = []
    for name, (low, high) in study.ranges.items():
        archs = [arch for arch in study.archs if low <= arch.params() <= high]
        own = study.accuracies([study.training(seed, params_range=(low, high)) for seed in seeds])
        of_one, of_longer, of_own = (_seed_means(accuracies, archs) for accuracies in (one, longer, own))
        rows.append(
            {
                "range": name,
                "fewest parameters": low,
                "most parameters": high,
                "networks": len(archs),
                "one supernet": mean_and_range(of_one),
                "three times the steps": mean_and_range(of_longer),
                "the range's own": mean_and_range(of_own),
                "gain at equal steps each": mean_and_range(_paired(of_own, of_one)),
                "gain at equal steps in all": mean_and_range(_paired(of_own, of_longer)),
            }
        )
    return {"One supernet or three": rows}


def compare_inherited(options: Options) -> Tables:
    """Train supernets and every network alone; compare validation top-1 in percent."""
    study = SupernetStudy(options, networks=20)
    supernets = [study.training(seed) for seed in range(options.seeds)]
    longer, *inherited = study.accuracies([study.training(0, 2 * options.epochs), *supernets])
    alone = {arch: top1 for arch, (top1,) in study.alone_accuracies(study.archs, [0]).items()}
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
    _draw_inheritance(rows, options)
    trained = {"inherited": supernets[:1], "from scratch": [study.alone(arch) for arch in study.archs]}
    return {
        "Inherited accuracy against training from scratch": rows,
        "Kendall's tau with training from scratch": _ranks(study, supernets, inherited, alone),
        "Steps of the first supernet": [
            {"steps": 1, "mean top-1": statistics.fmean(inherited[0].values())},
            {"steps": 2, "mean top-1": statistics.fmean(longer.values())},
        ],
        "Without transformer layers": [_without_layers(study, name, each) for name, each in trained.items()],
    }


def _ranks(
    study: SupernetStudy,
    supernets: Sequence[Training],
    inherited: Sequence[Mapping[Arch, float]],
    alone: Mapping[Arch, float],
) -> Rows:
    """Return the rank correlation of every estimate of accuracy with that from scratch."""
    estimates: dict[str, Sequence[float]] = {
        "inherited top-1, mean of supernets": [
            statistics.fmean(each[arch] for each in inherited) for arch in study.archs
        ],
        "parameters": [arch.params() for arch in study.archs],
        "MACs": [arch.macs().conv_linear for arch in study.archs],
    }
    for training in supernets:  # what a search would maximise, on the search split
        opened, rng = training.evaluators(study.options.on), random.Random("additive")
        sample = [study.space.sample(rng) for _ in range(study.options.pick(100, 10))]
        smoothed = SmoothedEvaluator(opened.likelihood, sample, 0.5)
        seed = f"seed {training.recipe.seed}"
        estimates[f"top-1, {seed}"] = opened.top1.accuracies(study.archs)
        estimates[f"likelihood, {seed}"] = opened.likelihood.accuracies(study.archs)
        estimates[f"likelihood, half additive, {seed}"] = smoothed.accuracies(study.archs)
    rows = [
        {"by": name, "tau": resampled(tau, values, list(alone.values()))}
        for name, values in estimates.items()
    ]
    pairs = itertools.combinations([list(each.values()) for each in inherited], 2)
    return rows + [
        {"by": f"between supernets, pair {number}", "tau": resampled(tau, *pair)}
        for number, pair in enumerate(pairs, 1)
    ]


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
    """Return weights and biases that write a transformer layer's output, of modules with `within` in their name.

    These are the last projections of its attention and of its MLP.
    """
    return [
        parameter
        for name, parameter in network.named_parameters()
        if within in name and name.rpartition(".")[0].endswith((".proj", ".fc2"))
    ]


def _draw_inheritance(rows: Rows, options: Options) -> None:
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
