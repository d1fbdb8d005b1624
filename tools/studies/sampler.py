"""What MobileViT's multi-scale sampler gains at equal steps: one network, three ways of drawing sizes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from luts.format.errors import UsageError
from search.spaces import Arch, get_arch, get_space
from search.supernet.data.images import ImageData, Split
from search.supernet.model.supernet import choose_device
from search.supernet.recipe.recipe import Recipe, resolutions_of
from search.supernet.recipe.schedule import Schedule
from tools.studies._options import Options
from tools.studies._processes import side_by_side
from tools.studies._supernets import Training, judged, open_images

NETWORK, SPACE = "mobilevit-xxs", "mobilevit"
BATCH, QUICK_BATCH = 16, 2
"""Images at the largest size; about as many pixels at the others."""

QUICK_IMAGES = 20
JUDGED, QUICK_JUDGED = 2000, 4
"""Validation images that accuracy is taken on."""

CALIBRATION_BATCHES = 16
"""Training batches for the statistics of BN at each size."""


def main(options: Options) -> str:
    """Train each way with each seed, judge at every size; the section's text."""
    if options.data is None and not options.quick:
        raise UsageError("this study trains networks; give --data, such as cifar10:FILE.npz, or --quick")
    text = options.data or "digits"
    images = _images(text, options.quick)
    arch = get_arch(NETWORK).with_classes(images.classes)
    ways = _ways(arch, images, options)
    runs = [
        Training(SPACE, recipe.model_copy(update={"seed": seed}), text, images.source.digest)
        for recipe in ways.values()
        for seed in range(options.seeds)
    ]
    sides = get_space(SPACE).resolutions
    asked = [arch.with_resolution(side) for side in (sides[:1] if options.quick else sides)]
    told = iter(side_by_side(partial(_judged, archs=asked, quick=options.quick), runs, options))
    found = {way: [next(told) for _ in range(options.seeds)] for way in ways}
    return _section(found, ways, asked, images, options)


def _ways(arch: Arch, images: ImageData, options: Options) -> dict[str, Recipe]:
    """Recipes by name: one size, sizes dealt out equally in each epoch, sizes drawn step by step as in the paper.

    The one of one size has batches of as many images as the others have on average, and so about as many steps.
    """
    sampled = Recipe(
        name="sampler",
        arch=arch.to_json(),
        epochs=options.epochs,
        batch_size=QUICK_BATCH if options.quick else BATCH,
        multi_scale=True,
        resolutions="space",
        learning_rate=2e-3,
        warmup_epochs=0.1,
        precision="bf16",
        channels_last=True,
    )
    steps = _schedule(sampled, images).steps_per_epoch
    batch = len(images.split.train) // steps
    return {
        f"{arch.resolution} px alone": sampled.model_copy(
            update={"batch_size": batch, "multi_scale": False, "resolutions": (arch.resolution,)}
        ),
        "sizes dealt out": sampled,
        "sizes drawn, as the paper": sampled.model_copy(update={"multi_scale": "drawn"}),
    }


def _images(text: str, quick: bool) -> ImageData:
    images = open_images(text)
    split = images.split
    train = split.train[:QUICK_IMAGES] if quick else split.train
    images.split = Split(train, split.search, split.validation[: QUICK_JUDGED if quick else JUDGED])
    return images


def _judged(run: Training, on: str, number: int, archs: Sequence[Arch], quick: bool) -> dict[Arch, float]:
    return judged(run, archs, _images(run.data, quick), choose_device(on, number), CALIBRATION_BATCHES)


def _section(
    found: Mapping[str, Sequence[Mapping[Arch, float]]],
    ways: Mapping[str, Recipe],
    asked: Sequence[Arch],
    images: ImageData,
    options: Options,
) -> str:
    rows = []
    for way, seeds in found.items():
        cells = []
        for arch in asked:
            own = [100 * accuracy[arch] for accuracy in seeds]
            cells.append(f"{statistics.fmean(own):.1f} ({min(own):.1f} to {max(own):.1f})")
        rows.append(f"| {way} | {_megapixels(ways[way], images):.2f} | {' | '.join(cells)} |")
    schedules = [_schedule(recipe, images) for recipe in ways.values()]
    steps = " and ".join(f"{count:,}" for count in sorted({schedule.steps for schedule in schedules}))
    head = " | ".join(f"at {arch.resolution} px" for arch in asked)
    return f"""### MobileViT's multi-scale sampler at equal steps

`{NETWORK}` on {Path(images.source.name).stem}, from random weights, {steps} steps (epochs: {options.epochs}) in
bf16, seeds: {options.seeds}. A step has as many images on average whatever the way; its pixels are in the table, in
millions. Top-1 on {len(images.split.validation):,} validation images in percent, BN recalibrated at each size;
smallest and largest of the seeds in brackets. Images are stretched from {images.side} px, so that sizes tell of
scale and not of detail.

| trained at | pixels a step | {head} |
{"|---" * (len(asked) + 2)}|
{chr(10).join(rows)}
"""


def _schedule(recipe: Recipe, images: ImageData) -> Schedule:
    return Schedule(recipe, images.split.train, resolutions_of(recipe, get_space(SPACE)))


def _megapixels(recipe: Recipe, images: ImageData) -> float:
    """Of a step, on average over the run's."""
    schedule = _schedule(recipe, images)
    pixels = (schedule.images(step) * schedule.resolution(step) ** 2 for step in range(schedule.steps))
    return statistics.fmean(pixels) / 1e6
