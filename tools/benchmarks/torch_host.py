"""Costs in PyTorch on the host: a supernet's training step, and the processing of a detector's outputs."""

from __future__ import annotations

import functools
import random
import statistics
import time
import timeit
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from luts.format.schema import Floats
from orchestrator.export.lower.source import one_thread
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
NANO_BATCH, BATCH = 64, 8
"""Images a step: as in the small recipe; fewer for the others, because a step at 256 px takes seconds."""
WARM_UP = 2
ROUNDS, OTHER_ROUNDS = {"autovit-nano": 60, "autovit-xxs": 70}, 30
"""The smallest networks have the largest overhead, and steps so short that many rounds take little time."""
LEARNING_RATE = 1e-4


def time_steps() -> Tables:
    """Measure a step of five networks in their supernets and alone, on one thread, in random order in each round.

    A step is forward, backward and optimizer. Ratios are of median processor times, which other programs do not
    lengthen on one thread, intervals by a bootstrap over rounds.
    """
    keep_freed_memory()
    with one_thread():
        return {"A supernet's step": [_measure(name) for name in ARCHS]}


def _measure(name: str) -> dict[str, object]:
    arch = _arch(name)
    supernet = Supernet(get_space(arch.space).with_classes(CLASSES))
    batch = NANO_BATCH if arch.space == "autovit-nano" else BATCH
    rounds = ROUNDS.get(arch.space, OTHER_ROUNDS)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, arch.resolution, arch.resolution, generator=generator)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator)
    network = supernet.extract(arch).train()
    sliced = SlicedAdamW(dict(supernet.named_parameters()))
    plain = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)

    def inside() -> None:
        sliced.zero_grad()
        torch.autograd.backward(F.cross_entropy(supernet(images, arch), labels))
        sliced.step(supernet.slices(arch), LEARNING_RATE)

    def alone() -> None:
        plain.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        plain.step()

    steps: tuple[Callable[[], None], ...] = (inside, alone)
    cpu_s: tuple[list[float], list[float]] = ([], [])
    rng = random.Random(0)
    for number in range(WARM_UP + rounds):
        for index in rng.sample((0, 1), 2):
            begun_s = time.process_time()
            steps[index]()
            if number >= WARM_UP:
                cpu_s[index].append(time.process_time() - begun_s)
    inside_ms, alone_ms = 1e3 * np.median(cpu_s, axis=1)
    return {
        "network": name,
        "pixels": arch.resolution,
        "batch": batch,
        "rounds": rounds,
        "in the supernet ms": inside_ms,
        "alone ms": alone_ms,
        "ratio": ratio_of_medians(*np.array(cpu_s)),
    }


def ratio_of_medians(inside: Floats, alone: Floats) -> Interval:
    """Return the ratio of the medians over rounds with its 95 % bootstrap interval."""
    return resampled(lambda a, b: float(np.median(a) / np.median(b)), inside, alone)


def _arch(name: str) -> Arch:
    if name.startswith("autovit-nano"):
        space = get_space("autovit-nano")
        draws = [space.sample(random.Random(seed)) for seed in range(20)]
        arch = draws[0] if name.endswith("random") else min(draws, key=Arch.params)
    else:
        arch = get_arch(name)
    return arch.with_classes(CLASSES)


DETECTOR, SEGMENTER = "autovit-xxs-paper.ssdlite20", "autovit-xxs-paper.deeplablite20"
SHOWN_SCORE = 0.3
"""Usual lowest score of a box that is shown; mAP counts boxes from `LEAST_SCORE`."""
SURE_OF_BACKGROUND = 6.0
"""Added to the logit of the background: most positions of an image are empty."""


def time_outputs(calls: int = 30) -> Tables:
    """Time decoding, suppression and masks in torch on one thread, batch 1.

    Outputs are random, most positions surely background; a trained network lets other numbers of boxes pass.
    """
    detector, segmenter = get_arch(DETECTOR), get_arch(SEGMENTER)
    generator = torch.Generator().manual_seed(0)
    default = default_boxes(levels_of(detector.blocks()))
    output = torch.randn(1, len(default), detector.classes + 1 + 4, generator=generator)
    output[..., 0] += SURE_OF_BACKGROUND
    logits = torch.randn(segmenter.blocks()[-1].output_shape, generator=generator)
    side = segmenter.resolution
    steps: dict[str, Callable[[], object]] = {
        f"boxes with a score of {score:g} or more": functools.partial(
            detections, output, default, score=score
        )
        for score in (LEAST_SCORE, SHOWN_SCORE)
    }
    steps[f"mask of {side} px"] = lambda: masks(logits, (side, side))
    rows = []
    with one_thread():
        for step, call in steps.items():
            ms = [1e3 * seconds for seconds in timeit.repeat(call, number=1, repeat=calls)]
            rows.append({"step": step, "ms": Interval(statistics.median(ms), min(ms), max(ms))})
    return {"Processing of a detector's and a segmenter's outputs": rows}
