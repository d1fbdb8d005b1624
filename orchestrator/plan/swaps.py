"""Pairs of networks that differ in as few blocks as shapes allow: what removal is for blocks that can be left out.

A block that changes width or resolution can't be removed, the head neither. It is shown by a neighbour: the same
architecture with another choice in one stage, another head, or one stage fewer. Where the stage after it takes
another number of channels then, its first block changes too and belongs to the pair's difference.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from luts.format.errors import UsageError
from search.spaces import Arch, Space


@dataclass(frozen=True)
class Swap:
    """`arch` is the base's neighbour; `gone` are the base's keys that it holds fewer times, `come` the reverse."""

    arch: Arch
    gone: tuple[str, ...]
    come: tuple[str, ...]

    @property
    def size(self) -> int:
        """Blocks that differ, on the side that has more of them."""
        return max(len(self.gone), len(self.come))


def swaps(space: Space, base: Arch) -> Iterator[Swap]:
    """All neighbours of an architecture in a fixed order, those that change fewer values of a stage first."""
    blocks = Counter(base.keys())
    for arch in _neighbours(space, base):
        try:
            space.check(arch)
        except UsageError:
            continue
        others = Counter(arch.keys())
        yield Swap(
            arch,
            tuple(sorted((blocks - others).elements())),
            tuple(sorted((others - blocks).elements())),
        )


def _neighbours(space: Space, base: Arch) -> Iterator[Arch]:
    for index, stage in enumerate(space.stages[: len(base.stages)]):
        mine = base.stages[index]
        alike = sorted(stage.options, key=lambda values: sum(map(operator.ne, values, mine)))
        for values in alike[1:]:
            yield replace(base, stages=(*base.stages[:index], values, *base.stages[index + 1 :]))
    for head in space.heads:
        if head != base.head:
            yield replace(base, head=head)
    yield replace(base, stages=base.stages[:-1])


def choose_swaps(space: Space, bases: Mapping[str, Arch], keys: Set[str]) -> list[tuple[str, Swap, str]]:
    """Few swaps that show every one of `keys` that any swap shows, each key in a swap as small as there is.

    A swap shows the keys on both of its sides. Answers base, swap, and the base's key that the swap lacks.
    """
    offers = [
        (name, swap, (set(swap.gone) | set(swap.come)) & keys)
        for name, base in bases.items()
        for swap in swaps(space, base)
        if swap.gone
    ]
    smallest: dict[str, int] = {}
    for _, swap, shown in offers:
        for key in shown:
            smallest[key] = min(swap.size, smallest.get(key, swap.size))
    best = [{key for key in shown if smallest[key] == swap.size} for _, swap, shown in offers]
    waiting, chosen = set(smallest), []
    while waiting:
        index = max(range(len(offers)), key=lambda i: (len(best[i] & waiting), -i))
        name, swap, _ = offers[index]
        gone = sorted(best[index] & waiting & set(swap.gone)) or sorted(keys & set(swap.gone)) or swap.gone
        chosen.append((name, swap, gone[0]))
        waiting -= best[index]
    return chosen
