"""What subnets share at their beginning is run once: equal first modules give equal outputs for equal batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

CACHE_BYTES = 512 << 20
"""Of kept activations, for each cache: those after all stages of small networks, the last ones of large."""

Prefix = tuple[Hashable, ...]
"""What decides the first modules of a network and their input, an item a module after the first item."""

Buffers = dict[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """Buffers of a beginning, and what it gives for every batch."""

    buffers: Buffers
    outputs: list[Tensor]


class PrefixCache:
    """Beginnings of networks that were run on the same batches, the least recently used dropped first."""

    def __init__(self, max_bytes: int = CACHE_BYTES):
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Prefix, Kept] = OrderedDict()

    def longest(self, path: Prefix) -> tuple[int, Kept | None]:
        """How many modules of `path` are known, and what is kept of them."""
        for modules in range(len(path) - 1, 0, -1):
            kept = self._kept.get(path[: modules + 1])
            if kept is not None:
                self._kept.move_to_end(path[: modules + 1])
                return modules, kept
        return 0, None

    def keep(self, prefix: Prefix, kept: Kept) -> None:
        """Remember a beginning; too large a one is left out by the caller."""
        self._kept[prefix] = kept
        total = sum(_bytes(each.outputs) for each in self._kept.values())
        while total > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            total -= _bytes(dropped.outputs)


class PrefixRun:
    """A network over batches from the longest beginning that is known, whose own beginnings are kept in turn."""

    def __init__(
        self, network: nn.Sequential, path: Prefix, ends: Sequence[int], cache: PrefixCache | None
    ) -> None:
        """
        Args:
            network: Its modules run one after the other.
            path: What decides the batches, then an item for each module: equal ones give equal outputs.
            ends: Numbers of modules after which what comes out may be kept.
            cache: Beginnings of earlier networks on the same batches.
        """
        self._cache, self._path = cache, path
        self._start, self.kept = cache.longest(path) if cache else (0, None)
        self.modules = list(network)[self._start :]
        inside = [end for end in ends if cache and self._start < end < len(network)]
        self._collected: dict[int, list[Tensor]] = {end: [] for end in inside}

    def outputs(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """What the network gives for each batch (B, 3, H, W); they are not touched where a beginning is known."""
        for x in self.kept.outputs if self.kept else batches:
            for position, module in enumerate(self.modules, self._start + 1):
                x = module(x)
                if position in self._collected:
                    self._collected[position].append(x)
            self._shrink()
            yield x

    def keep(self, buffers_of: Callable[[int], Buffers]) -> None:
        """Keep the beginnings of a finished run; `buffers_of`: of so many first modules."""
        if self._cache:
            for end, outputs in self._collected.items():
                self._cache.keep(self._path[: end + 1], Kept(buffers_of(end), outputs))

    def _shrink(self) -> None:
        """Drop the largest outputs until the rest fits."""
        sizes = {end: _bytes(outputs) for end, outputs in self._collected.items()}
        while self._cache and sum(sizes.values()) > self._cache.max_bytes // 2:
            end = max(sizes, key=lambda end: sizes[end])
            del sizes[end], self._collected[end]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
