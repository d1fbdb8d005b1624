"""What a supernet costs: a training step of a subnet inside it against the same network standing alone."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.networks import Network
from search.spaces import Arch, get_arch, get_space
from search.supernet.model.supernet import Supernet
from search.supernet.train.optimizer import SlicedAdamW
from search.supernet.train.step import keep_freed_memory

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
ROUNDS = {"autovit-nano": 60, "autovit-xxs": 70}
"""The smallest networks have the largest overhead, and steps so short that many rounds take little time."""
OTHER_ROUNDS = 30
TARGET = 1.05
LEARNING_RATE = 1e-4


class Step(NamedTuple):
    """Processor time, on one thread a step's duration whatever else the machine does, and time by the clock."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Row:
    """Every step of an architecture, round by round."""

    name: str
    arch: Arch
    inside: tuple[Step, ...]
    alone: tuple[Step, ...]

    @property
    def ratio(self) -> float:
        """Median processor time inside over that alone."""
        return _median_ms(step.cpu_s for step in self.inside) / _median_ms(step.cpu_s for step in self.alone)

    @property
    def wall_ratio(self) -> float:
        """The same by the clock."""
        return _median_ms(step.wall_s for step in self.inside) / _median_ms(
            step.wall_s for step in self.alone
        )

    def interval(self) -> tuple[float, float]:
        """95 % of the ratio of processor times, by a bootstrap over rounds."""
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(self.inside), (2000, len(self.inside)))
        inside, alone = (
            np.median(np.array([step.cpu_s for step in steps])[picked], axis=1)
            for steps in (self.inside, self.alone)
        )
        low, high = np.quantile(inside / alone, (0.025, 0.975))
        return float(low), float(high)


def main() -> str:
    """Measure the five architectures on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        rows = [measure(name) for name in ARCHS]
    finally:
        torch.set_num_threads(threads)
    kept = sum(row.ratio <= TARGET for row in rows)
    lines = [
        "## A supernet's step",
        "",
        "Median processor time of forward, backward and optimizer of a subnet in its supernet over that of the "
        "standalone network with torch's AdamW, one thread, both in random order in each round, in a process that "
        "keeps freed memory as training does; the interval is a bootstrap over rounds. "
        f"At most {TARGET}: {kept} of {len(rows)}.",
        "",
        "| network | pixels | batch | rounds | in the supernet ms | alone ms | ratio | 95 % | ratio by the clock |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        low, high = row.interval()
        inside, alone = (_median_ms(step.cpu_s for step in steps) for steps in (row.inside, row.alone))
        lines.append(
            f"| {row.name} | {row.arch.resolution} | {_batch(row.arch)} | {len(row.inside)} | {inside:.1f} | "
            f"{alone:.1f} | {row.ratio:.3f} | {low:.3f} to {high:.3f} | {row.wall_ratio:.3f} |"
        )
    return "\n".join(lines)


def measure(name: str) -> Row:
    """Steps of one architecture inside its supernet and alone, one of each a round in random order."""
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
    return Row(name, arch, tuple(taken[0]), tuple(taken[1]))


def _median_ms(seconds: Iterable[float]) -> float:
    return statistics.median(seconds) * 1e3


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
