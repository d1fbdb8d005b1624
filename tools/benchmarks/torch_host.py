"""Costs in PyTorch on the host: a supernet's training step, and the processing of a detector's outputs."""

from __future__ import annotations

import functools
import random
import statistics
import time
import timeit
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luts.format.schema import Floats
from search.networks import Network
from search.networks.outputs import LEAST_SCORE, default_boxes, detections, levels_of, masks
from search.spaces import Arch, get_arch, get_space
from search.supernet.model.supernet import Supernet
from search.supernet.train.optimizer import SlicedAdamW
from search.supernet.train.parallel import keep_freed_memory
from tools.tables import Interval, Tables, resampled

ARCHS = (
    "autovit-nano smallest",
    "autovit-nano random",
    "autovit-xxs-paper",
    "autovit-xs-paper",
    "autovit-s-paper",
)
CLASSES = 10
BATCHES = {"autovit-nano": 64}
"""As in the small recipe; the others have fewer images, because a step at 256 px takes seconds."""
BATCH = 8
WARM_UP = 2
ROUNDS = {"autovit-nano": 60, "autovit-xxs": 70}
"""The smallest networks have the largest overhead, and steps so short that many rounds take little time."""
OTHER_ROUNDS = 30
LEARNING_RATE = 1e-4


class Step(NamedTuple):
    """Processor time, which other programs do not lengthen on one thread, and time by the clock."""

    cpu_s: float
    wall_s: float


def time_steps() -> Tables:
    """Measure a step of five networks in their supernets and alone, on one thread, in random order in each round.

    A step is forward, backward and optimizer. Ratios are of median processor times, intervals by a bootstrap over
    rounds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        return {"A supernet's step": [measure(name) for name in ARCHS]}
    finally:
        torch.set_num_threads(threads)


def measure(name: str) -> dict[str, object]:
    """Return the row of one network."""
    arch = _arch(name)
    supernet = Supernet(get_space(arch.space).with_classes(CLASSES))
    batch, rounds = _batch(arch), ROUNDS.get(arch.space, OTHER_ROUNDS)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, arch.resolution, arch.resolution, generator=generator)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator)
    network = supernet.extract(arch).train()
    steps = (_inside(supernet, arch, images, labels), _alone(network, images, labels))
    taken: tuple[list[Step], list[Step]] = ([], [])
    rng = random.Random(0)
    for number in range(WARM_UP + rounds):
        for index in rng.sample((0, 1), 2):
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            steps[index]()
            if number >= WARM_UP:
                taken[index].append(Step(time.process_time() - cpu_s, time.perf_counter() - wall_s))
    times = np.array(taken)
    inside_ms, alone_ms = 1e3 * np.median(times[:, :, 0], axis=1)
    return {
        "network": name,
        "pixels": arch.resolution,
        "batch": batch,
        "rounds": rounds,
        "in the supernet ms": inside_ms,
        "alone ms": alone_ms,
        "ratio": ratio_of_medians(*times[:, :, 0]),
        "ratio by the clock": ratio_of_medians(*times[:, :, 1]).value,
    }


def ratio_of_medians(inside: Floats, alone: Floats) -> Interval:
    """Return the ratio of the medians over rounds with its 95 % bootstrap interval."""
    return resampled(lambda a, b: float(np.median(a) / np.median(b)), list(inside), list(alone))


def _batch(arch: Arch) -> int:
    return BATCHES.get(arch.space, BATCH)


def _arch(name: str) -> Arch:
    if name.startswith("autovit-nano"):
        space = get_space("autovit-nano")
        draws = [space.sample(random.Random(seed)) for seed in range(20)]
        arch = draws[0] if name.endswith("random") else min(draws, key=Arch.params)
    else:
        arch = get_arch(name)
    return arch.with_classes(CLASSES)


def _inside(supernet: Supernet, arch: Arch, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = SlicedAdamW(dict(supernet.named_parameters()))

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(supernet(images, arch), labels))
        optimizer.step(supernet.slices(arch), LEARNING_RATE)

    return step


def _alone(network: Network, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        optimizer.step()

    return step


DETECTOR, SEGMENTER = "autovit-xxs-paper.ssdlite20", "autovit-xxs-paper.deeplablite20"
CALLS = 30
SHOWN_SCORE = 0.3
"""Usual lowest score of a box that is shown; mAP counts boxes from `LEAST_SCORE`."""

SURE_OF_BACKGROUND = 6.0
"""Added to the logit of the background: most positions of an image are empty."""


def time_outputs(calls: int = CALLS) -> Tables:
    """Time decoding, suppression and masks in torch on one thread, batch 1.

    Outputs are random, most positions surely background; a trained network lets other numbers of boxes pass.
    """
    detector, segmenter = get_arch(DETECTOR), get_arch(SEGMENTER)
    generator = torch.Generator().manual_seed(0)
    default = default_boxes(levels_of(detector.blocks()))
    output = torch.randn(1, len(default), detector.classes + 1 + 4, generator=generator)
    output[..., 0] += SURE_OF_BACKGROUND
    logits = torch.randn(segmenter.blocks()[-1].output_shape, generator=generator)
    size = (segmenter.resolution, segmenter.resolution)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for score in (LEAST_SCORE, SHOWN_SCORE):
            detect = functools.partial(detections, output, default, score=score)
            step = f"boxes with a score of {score:g} or more"
            rows.append({"step": step, "boxes": len(detect()[0].scores), **_times(detect, calls)})
        step = f"mask of {size[0]} px"
        rows.append({"step": step, "boxes": None, **_times(lambda: masks(logits, size), calls)})
    finally:
        torch.set_num_threads(threads)
    return {"Processing of a detector's and a segmenter's outputs": rows}


def _times(call: Callable[[], object], calls: int) -> dict[str, float]:
    times_ms = [1e3 * seconds for seconds in timeit.repeat(call, number=1, repeat=calls)]
    return {"ms": statistics.median(times_ms), "shortest": min(times_ms), "longest": max(times_ms)}
