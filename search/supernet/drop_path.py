"""Stochastic depth: blocks that a network can do without are left out for some images of a batch.

Huang et al. 2016, with the rates of DeiT's code (Touvron et al. 2021): they grow linearly over the network's
blocks, from 0. A block is left out as a whole, with all of its residuals; DeiT draws for each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.blocks import Group

Scales = Mapping[int, Tensor]
"""For places of blocks in a group: what their branch counts for each image, 0 or 1 / (1 - rate); (B,)."""


@dataclass(frozen=True)
class DropPath:
    """What a pass leaves out; equal seeds give equal draws.

    Attributes:
        rate: Share of the images that leave out the last block, below 1.
        seed: Whatever text.
    """

    rate: float
    seed: str

    def draw(self, groups: Sequence[Group], images: int) -> list[Scales]:
        """Scales of each group's removable blocks; those of the network's first, whose rate is 0, are left out."""
        rng = random.Random(f"drop path {self.seed}")
        last = sum(block.removable for group in groups for block in group) - 1
        found: list[Scales] = []
        index = 0
        for group in groups:
            scales: dict[int, Tensor] = {}
            for place, block in enumerate(group):
                if not block.removable:
                    continue
                rate, index = self.rate * index / max(1, last), index + 1
                generator = torch.Generator().manual_seed(rng.getrandbits(63))
                if rate:
                    scales[place] = (torch.rand(images, generator=generator) >= rate) / (1 - rate)
            found.append(scales)
        return found


@contextmanager
def leaving_out(module: nn.Module, scales: Scales) -> Iterator[None]:
    """Let the blocks of a group's module count by their scales while the context lasts."""
    hooks = [
        (module.get_submodule(f"layers.{place - 1}") if place else module).register_forward_hook(_mix(scale))
        for place, scale in scales.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mix(scale: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Hook of a block x + f(x) whose f(x) is to count by `scale`.

    Tokens may be as many sequences of an image: the images follow each other within each (`unfold_patches`).
    """

    def mix(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        (x,) = inputs
        factors = scale.to(out).repeat(len(x) // len(scale))
        return x + (out - x) * factors.view(-1, *[1] * (out.ndim - 1))

    return mix
