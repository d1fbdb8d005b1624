"""What MobileViT's multi-scale sampler gains at equal steps: one network, three ways of drawing sizes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from luts.format.errors import UsageError
from search.networks import Network, build_network
from search.spaces import Arch, get_arch, get_space
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.schedule import Schedule
from tools.studies._options import Options
from tools.studies._training import HELD_OUT, mirrored

NETWORK = "mobilevit-xxs"
BATCH = 16
"""Images at the largest size; as many pixels at the others."""

LEARNING_RATE = 2e-3
QUICK_STEPS = 1
QUICK_IMAGES = 8
QUICK_BATCH = 2
JUDGED = 2000
"""Held-out images that accuracy is taken on."""


@dataclass(frozen=True)
class _Way:
    """How sizes are drawn: none, dealt out equally in each epoch, or drawn step by step as in the paper."""

    name: str
    multi_scale: bool | Literal["drawn"]
    sides: tuple[int, ...]


def main(options: Options) -> str:
    """Train each way with each seed, judge at every size; the section's text."""
    if options.data is None and not options.quick:
        raise UsageError("this study trains networks; give --data, such as cifar10:FILE.npz, or --quick")
    sides = get_space("mobilevit").resolutions
    images = ImageData(open_source(options.data or "digits"), fraction=HELD_OUT, largest_side=max(sides))
    arch = get_arch(NETWORK).with_classes(images.classes)
    ways = (
        _Way(f"{arch.resolution} px alone", True, (arch.resolution,)),
        _Way("sizes dealt out", True, sides),
        _Way("sizes drawn, as the paper", "drawn", sides),
    )
    judged_at = sides[:1] if options.quick else sides
    steps = QUICK_STEPS if options.quick else _steps(images, ways[-1], options.epochs)
    found = {
        way: [
            _trained(arch, way, images, steps, seed, judged_at, options.quick)
            for seed in range(options.seeds)
        ]
        for way in ways
    }
    return _section(found, judged_at, steps, options, images)


def _recipe(way: _Way, seed: int, epochs: int, batch: int = BATCH) -> Recipe:
    """A batch of as many pixels whatever the size: that of one size alone has those of the largest, too."""
    largest = max(get_space("mobilevit").resolutions)
    share = batch * (largest / max(way.sides)) ** 2
    return Recipe(
        name="study",
        epochs=epochs,
        batch_size=2 * int(share / 2),
        multi_scale=way.multi_scale,
        learning_rate=LEARNING_RATE,
        warmup_epochs=0.0,
        seed=seed,
    )


def _steps(images: ImageData, way: _Way, epochs: int) -> int:
    return Schedule(_recipe(way, 0, epochs), images.split.train, way.sides).steps


def _trained(
    arch: Arch, way: _Way, images: ImageData, steps: int, seed: int, judged_at: Sequence[int], quick: bool
) -> dict[int, float]:
    """Accuracy at each size after so many steps."""
    torch.manual_seed(seed)
    smallest = arch.with_resolution(min(get_space("mobilevit").resolutions))
    network = build_network(
        smallest.blocks()
    )  # its last block stretches odd maps, and takes even ones as they are
    batch = QUICK_BATCH if quick else BATCH
    per_epoch = Schedule(_recipe(way, seed, 1, batch), images.split.train, way.sides).steps_per_epoch
    recipe = _recipe(way, seed, -(-steps // per_epoch), batch)
    schedule = Schedule(recipe, images.split.train, way.sides)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        part = schedule.part(step, 0)
        inputs, labels = images.batch(part.indices, part.resolution)
        inputs = mirrored(inputs, images, rng)
        for group in optimizer.param_groups:
            group["lr"] = recipe.model_copy(update={"epochs": 1}).learning_rate_at(step, steps)
        optimizer.zero_grad()
        logits = network(inputs)
        torch.autograd.backward(F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing))
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        optimizer.step()
    held_out = images.split.validation[: QUICK_IMAGES if quick else JUDGED]
    return {side: _accuracy(network, images, held_out, side) for side in judged_at}


@torch.no_grad()
def _accuracy(network: Network, images: ImageData, held_out: np.ndarray, side: int) -> float:
    network.eval()
    hits = [
        int((network(inputs).argmax(1) == labels).sum())
        for inputs, labels in images.batches(held_out, side, 4 * BATCH)
    ]
    return sum(hits) / len(held_out)


def _section(
    found: Mapping[_Way, Sequence[Mapping[int, float]]],
    sides: Sequence[int],
    steps: int,
    options: Options,
    images: ImageData,
) -> str:
    rows = []
    for way, seeds in found.items():
        cells = []
        for side in sides:
            own = [100 * accuracy[side] for accuracy in seeds]
            cells.append(f"{statistics.fmean(own):.1f} ({min(own):.1f} to {max(own):.1f})")
        rows.append(f"| {way.name} | {' | '.join(cells)} |")
    batch = QUICK_BATCH if options.quick else BATCH
    head = " | ".join(f"at {side} px" for side in sides)
    table = "\n".join([f"| trained at | {head} |", "|---" * (len(sides) + 1) + "|", *rows])
    return f"""### MobileViT's multi-scale sampler at equal steps

`{NETWORK}` on {images.source.name}, {steps} steps each, {options.seeds} seeds; a step has about as many pixels
whatever the size ({batch} images at the largest). Top-1 on held-out images in percent, smallest and largest of
the seeds in brackets. Images are stretched from {images.side} px, so that sizes tell of scale and not of detail.
Equal steps are not equal images: smaller sizes come in larger batches.

{table}
"""
