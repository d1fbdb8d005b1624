"""Supernets of AutoViT's space: distillation, ranges of sizes, inherited accuracy, winners, image sizes."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from luts.format.store import load_lut
from orchestrator.report.draw import BLUE, MUTED
from search.algorithms import CompiledSpace, Constraints, LutPrice, SearchSettings, search
from search.algorithms.objectives import MacsObjective, SmoothedEvaluator
from search.spaces import Arch, get_arch, get_space
from search.supernet.data.images import open_data
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.recipe import Recipe, changed, resolutions_of
from search.supernet.recipe.schedule import Schedule
from search.supernet.train.checkpoint import load_supernet
from tools.studies.shared import Options, run_parallel, tau
from tools.studies.trainings import TEACHER, SupernetStudy, Training, evaluators, trained_teacher
from tools.tables import Rows, Tables, mean_and_range, resampled

PAPER_TOP1 = {"none": 64.6, "soft": 70.5, "hard": 71.3}
"""Table 4: ImageNet, with RegNetY-32G as the teacher."""


def compare_teachers(options: Options) -> Tables:
    """Compare inherited validation top-1 in percent over seeds; gains are paired by seed.

    Augmentation repeats every second epoch with all three kinds, so that stored teacher labels can be reused.
    """
    study = SupernetStudy(options)
    teacher, teacher_top1 = trained_teacher(study.data, options.on, quick=options.quick)
    rows = []
    none_means: list[float] = []
    for kind, paper in PAPER_TOP1.items():  # in this order: "hard" reuses the labels that "soft" stores
        accuracies = study.accuracies(
            [_distilled(study, kind, teacher, seed) for seed in range(options.seeds)]
        )
        means = [statistics.fmean(each.values()) for each in accuracies]
        none_means = none_means or means
        gains = [mean - none for mean, none in zip(means, none_means, strict=True)]
        rows.append(
            {
                "distillation": kind,
                f"mean of {len(study.archs)} networks": mean_and_range(means),
                "gain": mean_and_range(gains),
                "largest network": mean_and_range([each[study.archs[-1]] for each in accuracies]),
                "paper, ImageNet": paper,
            }
        )
    return {
        "Distillation": rows,
        "Teacher": [{"network": TEACHER, "top-1, %": teacher_top1}],
    }


def _distilled(study: SupernetStudy, kind: str, teacher: str, seed: int) -> Training:
    training = study.training(seed, augmentation_epochs=2)
    recipe = changed(training.recipe, {}, {"kind": kind, "alpha": 0.5, "tau": 1.0})
    return replace(training, recipe=recipe, teacher=None if kind == "none" else teacher)


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
        means = [_seed_means(accuracies, archs) for accuracies in (one, longer, own)]
        rows.append(
            {
                "range": name,
                "fewest parameters": low,
                "most parameters": high,
                "networks": len(archs),
                "one supernet": mean_and_range(means[0]),
                "three times the steps": mean_and_range(means[1]),
                "the range's own": mean_and_range(means[2]),
                "gain at equal steps each": mean_and_range(_paired(means[2], means[0])),
                "gain at equal steps in all": mean_and_range(_paired(means[2], means[1])),
            }
        )
    return {"One supernet or three": rows}


def _seed_means(accuracies: Sequence[dict[Arch, float]], archs: Sequence[Arch]) -> list[float]:
    """Return the mean over networks, for each seed."""
    return [statistics.fmean(each[arch] for arch in archs) for each in accuracies]


def _paired(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, base, strict=True)]


INHERITANCE_NETWORKS = 20
SAMPLE, QUICK_SAMPLE = 100, 10
"""Random networks that the additive model is fitted to."""
LAYER_OUTPUTS = (".proj", ".fc2")
"""Last projections of the attention and of the MLP of a transformer layer."""


def compare_inherited(options: Options) -> Tables:
    """Train supernets and every network alone; compare validation top-1 in percent."""
    study = SupernetStudy(options, INHERITANCE_NETWORKS)
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
    _draw_inheritance(rows, options)
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


RANDOM, QUICK_RANDOM = 8, 2
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


SAMPLER_NETWORK, SAMPLER_SPACE = "mobilevit-xxs", "mobilevit"
SAMPLER_BATCH = 16
"""Images per step at the largest size; the number of pixels is about equal at all sizes."""
SAMPLER_IMAGES, QUICK_SAMPLER_IMAGES = 2000, 4
"""Validation images."""
SAMPLER_CALIBRATION_BATCHES = 16


def compare_sampling(options: Options) -> Tables:
    """Train each way with each seed; validation top-1 in percent at every size, range over seeds."""
    sides = _sides(options)
    arch = get_arch(SAMPLER_NETWORK).with_classes(10).with_resolution(sides[0] if options.quick else 256)
    archs = [arch.with_resolution(side) for side in sides]
    rows, steps = [], []
    for name, recipe in recipes(arch, options).items():
        trainings = [
            Training(SAMPLER_SPACE, recipe.model_copy(update={"seed": seed}), options.images)
            for seed in range(options.seeds)
        ]
        found = run_parallel(
            partial(_accuracies_by_size, archs=archs, quick=options.quick), trainings, options
        )
        schedule = _schedule(recipe, options)
        pixels = [schedule.images(i) * schedule.resolution(i) ** 2 for i in range(schedule.steps)]
        row: dict[str, object] = {"trained at": name, "million pixels a step": statistics.fmean(pixels) / 1e6}
        for side, *of_seeds in zip(sides, *found, strict=True):
            row[f"at {side} px"] = mean_and_range(of_seeds, 100)
        rows.append(row)
        steps.append({"trained at": name, "steps": schedule.steps})
    return {"Multi-scale sampling at equal steps": rows, "Steps": steps}


def recipes(arch: Arch, options: Options) -> dict[str, Recipe]:
    """Return recipes for one size, sizes dealt out equally in an epoch, and sizes drawn at each step (the paper).

    With one size a batch has as many images as the others have on average, so that the steps are about equal.
    """
    sampled = Recipe(
        name="sampler",
        arch=arch.to_json(),
        epochs=options.epochs,
        batch_size=SAMPLER_BATCH,
        multi_scale=True,
        resolutions=_sides(options),
        learning_rate=2e-3,
        warmup_epochs=0.1,
        precision="bf16",
        channels_last=True,
    )
    schedule = _schedule(sampled, options)
    images = sum(schedule.images(step) for step in range(schedule.steps))
    one_size = {
        "batch_size": images // schedule.steps,
        "multi_scale": False,
        "resolutions": (arch.resolution,),
    }
    return {
        f"{arch.resolution} px only": sampled.model_copy(update=one_size),
        "sizes dealt out": sampled,
        "sizes drawn": sampled.model_copy(update={"multi_scale": "drawn"}),
    }


def _sides(options: Options) -> tuple[int, ...]:
    sides = get_space(SAMPLER_SPACE).resolutions
    return sides[:2] if options.quick else sides


def _schedule(recipe: Recipe, options: Options) -> Schedule:
    space = get_space(SAMPLER_SPACE)
    data = open_data(options.images, space, recipe)
    return Schedule(recipe, data.split.train, resolutions_of(recipe, space))


def _accuracies_by_size(
    training: Training, on: str, number: int, archs: Sequence[Arch], quick: bool
) -> list[float]:
    training.run(on, number)
    opened = evaluators(
        training,
        on,
        number,
        final=True,
        images=QUICK_SAMPLER_IMAGES if quick else SAMPLER_IMAGES,
        calibration_batches=1 if quick else SAMPLER_CALIBRATION_BATCHES,
    )
    return opened.top1.accuracies(archs)
