"""How many of its weights a subnet shares with all others: the weight-sharing efficiency of a supernet.

E = (1/N) sum over n of w_shared / w_total,n (AutoViT's journal version): w_total,n are the weights of the n-th of
N subnets, w_shared those that all N have in common. The formula leaves open with whom weights are shared; as
w_shared has no index there, it is read as one number for all N. Then E is 1 where all subnets are the same network.
It is larger for each of three spaces than for one that holds them all, and not for ranges of one (docs/autovit.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from search.spaces import Arch, Space
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.sizes import Sizes


@dataclass(frozen=True)
class Sharing:
    """Weight sharing among some subnets.

    Attributes:
        subnets: N.
        shared: w_shared, weights that all of them use.
        smallest: Weights of the smallest of them.
        largest: Weights of the largest.
        supernet: Weights that are stored, of all subnets of the space.
        efficiency: E, 0 to 1.
    """

    subnets: int
    shared: int
    smallest: int
    largest: int
    supernet: int
    efficiency: float


def efficiency(shared: int, totals: Sequence[int]) -> float:
    """E of w_shared and every w_total,n."""
    return sum(shared / total for total in totals) / len(totals)


def sharing(space: Space, archs: Sequence[Arch]) -> Sharing:
    """Weight sharing of some subnets of a space's supernet."""
    with torch.device("meta"):
        supernet = Supernet(space)
    common: dict[str, tuple[tuple[int, int], ...]] | None = None
    for arch in archs:
        own = {part.source: tuple((s.start, s.stop) for s in part.index) for part in supernet.slices(arch)}
        common = own if common is None else _intersection(common, own)
    if common is None:
        raise ValueError("weights are shared by at least one subnet")
    shared = sum(math.prod(stop - start for start, stop in box) for box in common.values())
    totals = [arch.params() for arch in archs]
    stored = sum(parameter.numel() for parameter in supernet.parameters())
    return Sharing(len(archs), shared, min(totals), max(totals), stored, efficiency(shared, totals))


def partition(space: Space, supernets: int) -> list[list[Arch]]:
    """Random architectures of a space, divided by their parameters into as many ranges of equal counts.

    The supernets of AutoViT's section 3.2: each is trained on subnets of one range.
    """
    archs = [arch for _, arch in Sizes(space).reference]
    edges = [round(len(archs) * index / supernets) for index in range(supernets + 1)]
    return [archs[start:end] for start, end in itertools.pairwise(edges)]


def _intersection(
    a: dict[str, tuple[tuple[int, int], ...]], b: dict[str, tuple[tuple[int, int], ...]]
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Elements that two sets of boxes, one a parameter, have in common."""
    both = {
        name: tuple((max(s, u), min(e, v)) for (s, e), (u, v) in zip(box, b[name], strict=True))
        for name, box in a.items()
        if name in b
    }
    return {name: box for name, box in both.items() if all(start < end for start, end in box)}
