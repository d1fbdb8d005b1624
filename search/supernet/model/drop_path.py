"""Stochastic depth: blocks that a network can do without are left out for some images of a batch.

Huang et al. 2016, as in DeiT's code (Touvron et al. 2021): rates grow linearly over the network's blocks, from 0,
and each residual of a block is left out on its own, a transformer layer's attention apart from its MLP.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.blocks import Group

Scales = Mapping[tuple[int, str], Tensor]
"""What a branch counts for each image, 0 or 1 / (1 - rate), (B,): by its block's place in a group and its name in
`BlockSpec.branches`, which is empty where the block is one residual."""


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
        drawn: list[Scales] = []
        index = 0
        for group in groups:
            scales: dict[tuple[int, str], Tensor] = {}
            for place, block in enumerate(group):
                if not block.removable:
                    continue
                rate, index = self.rate * index / max(1, last), index + 1
                generator = torch.Generator().manual_seed(rng.getrandbits(63))
                for branch in (block.branches or ("",)) if rate else ():
                    scales[place, branch] = (torch.rand(images, generator=generator) >= rate) / (1 - rate)
            drawn.append(scales)
        return drawn


@contextmanager
def leaving_out(module: nn.Module, scales: Scales) -> Iterator[None]:
    """Let the branches of a group's module count by their scales while the context lasts."""
    hooks = []
    for (place, branch), scale in scales.items():
        block = module.get_submodule(f"layers.{place - 1}") if place else module
        hooks.append(block.get_submodule(branch).register_forward_hook(_scaled(scale, not branch)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scaled(scale: Tensor, whole: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Hook of a branch f(x), or of a whole block x + f(x), whose f(x) is to count by `scale`.

    Tokens may be as many sequences of an image: the images follow each other within each (`unfold_patches`).
    """

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        factors = scale.to(out).repeat(len(out) // len(scale)).view(-1, *[1] * (out.ndim - 1))
        return inputs[0] + (out - inputs[0]) * factors if whole else out * factors

    return hook
