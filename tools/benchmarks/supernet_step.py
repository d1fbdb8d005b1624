"""What a supernet costs: a training step of a subnet inside it against the same network standing alone."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.networks import Network
from search.spaces import Arch, get_arch, get_space
from search.supernet.optimizer import SlicedAdamW
from search.supernet.supernet import Supernet

ARCHS = (
    "autovit-nano smallest",
    "autovit-nano random",
    "autovit-xxs-paper",
    "autovit-xs-paper",
    "autovit-s-paper",
)
CLASSES = 10
BATCHES = {"autovit-nano": 64}
"""As the small recipe's; the others have fewer images, at their 256 px a step takes seconds."""
BATCH = 8
WARM_UP = 2
ROUNDS = 15
TARGET = 1.05
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Row:
    """Processor seconds of every step: on one thread its duration, whatever else the machine does."""

    name: str
    arch: Arch
    batch: int
    inside_s: tuple[float, ...]
    alone_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median inside over median alone."""
        return statistics.median(self.inside_s) / statistics.median(self.alone_s)

    def interval(self) -> tuple[float, float]:
        """95 % of the ratio, by a bootstrap over rounds."""
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(self.inside_s), (2000, len(self.inside_s)))
        medians = (np.median(np.asarray(column)[picked], axis=1) for column in (self.inside_s, self.alone_s))
        inside, alone = medians
        low, high = np.quantile(inside / alone, (0.025, 0.975))
        return float(low), float(high)


def main() -> str:
    """Measure the five architectures on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [measure(name) for name in ARCHS]
    finally:
        torch.set_num_threads(threads)
    kept = sum(row.ratio <= TARGET for row in rows)
    lines = [
        "## A supernet's step",
        "",
        "Median processor time of forward, backward and optimizer of a subnet in its supernet over that of the "
        f"standalone network with torch's AdamW, one thread, {ROUNDS} rounds, both in random order in each; "
        f"the interval is a bootstrap over rounds. At most {TARGET}: {kept} of {len(rows)}.",
        "",
        "| network | pixels | batch | in the supernet ms | alone ms | ratio | 95 % |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        low, high = row.interval()
        inside, alone = statistics.median(row.inside_s) * 1e3, statistics.median(row.alone_s) * 1e3
        lines.append(
            f"| {row.name} | {row.arch.resolution} | {row.batch} | {inside:.1f} | {alone:.1f} | "
            f"{row.ratio:.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join(lines)


def measure(name: str, rounds: int = ROUNDS) -> Row:
    """Steps of one architecture inside its supernet and alone, one of each a round in random order."""
    arch = _arch(name)
    supernet = Supernet(get_space(arch.space).with_classes(CLASSES))
    batch = BATCHES.get(arch.space, BATCH)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, arch.resolution, arch.resolution, generator=generator)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator)
    network = supernet.extract(arch).train()
    steps = (_inside(supernet, arch, images, labels), _alone(network, images, labels))
    seconds: tuple[list[float], list[float]] = ([], [])
    rng = random.Random(0)
    for number in range(WARM_UP + rounds):
        for index in rng.sample((0, 1), 2):
            begun = time.process_time()
            steps[index]()
            if number >= WARM_UP:
                seconds[index].append(time.process_time() - begun)
    return Row(name, arch, batch, tuple(seconds[0]), tuple(seconds[1]))


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
