"""What MobileViT's multi-scale sampler gains at equal steps: one network, three ways to choose image sizes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from search.spaces import Arch, get_arch, get_space
from search.supernet.data.images import open_data
from search.supernet.recipe.recipe import Recipe, resolutions_of
from search.supernet.recipe.schedule import Schedule
from tools.studies.shared import Options, run_parallel
from tools.studies.trainings import Training, evaluators
from tools.tables import Tables, mean_and_range

NETWORK, SPACE = "mobilevit-xxs", "mobilevit"
BATCH = 16
"""Images per step at the largest size; the number of pixels is about equal at all sizes."""
IMAGES, QUICK_IMAGES = 2000, 4
"""Validation images."""
CALIBRATION_BATCHES = 16


def main(options: Options) -> Tables:
    """Train each way with each seed; validation top-1 in percent at every size, range over seeds."""
    sides = _sides(options)
    arch = get_arch(NETWORK).with_classes(10).with_resolution(sides[0] if options.quick else 256)
    archs = [arch.with_resolution(side) for side in sides]
    rows, steps = [], []
    for name, recipe in recipes(arch, options).items():
        trainings = [
            Training(SPACE, recipe.model_copy(update={"seed": seed}), options.images)
            for seed in range(options.seeds)
        ]
        found = run_parallel(partial(_accuracies, archs=archs, quick=options.quick), trainings, options)
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
        batch_size=BATCH,
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
    sides = get_space(SPACE).resolutions
    return sides[:2] if options.quick else sides


def _schedule(recipe: Recipe, options: Options) -> Schedule:
    space = get_space(SPACE)
    data = open_data(options.images, space, recipe)
    return Schedule(recipe, data.split.train, resolutions_of(recipe, space))


def _accuracies(training: Training, on: str, number: int, archs: Sequence[Arch], quick: bool) -> list[float]:
    training.run(on, number)
    opened = evaluators(
        training,
        on,
        number,
        final=True,
        images=QUICK_IMAGES if quick else IMAGES,
        calibration_batches=1 if quick else CALIBRATION_BATCHES,
    )
    return opened.top1.accuracies(archs)
