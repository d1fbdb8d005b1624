"""BN statistics of a subnet's own, for a copy of its weights; what subnets share at their beginning is kept.

A supernet's statistics would mix all subnets, so each gets those of its own on training images (BigNAS, Yu et
al. 2020, section 3.4). While they are taken BN normalises by the batch, so what comes out of a network's first
stages depends on these stages alone: subnets that begin alike share it, and the statistics on the way there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CACHE_BYTES = 512 << 20
"""Of kept activations, for each process: those after all stages of small networks, the last ones of large."""

Prefix = tuple[Hashable, ...]
"""What decides the first modules of a network and their input, an item a module after the first item."""


@dataclass(frozen=True)
class _Kept:
    """Statistics of the BN layers of a prefix, and what the prefix gives for every batch."""

    buffers: dict[str, Tensor]
    outputs: list[Tensor]


class PrefixCache:
    """Beginnings of networks that were recalibrated on the same batches, the least recently used dropped first."""

    def __init__(self, max_bytes: int = CACHE_BYTES):
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Prefix, _Kept] = OrderedDict()

    def longest(self, path: Prefix) -> tuple[int, _Kept | None]:
        """How many modules of `path` are known, and what is kept of them."""
        for modules in range(len(path) - 1, 0, -1):
            kept = self._kept.get(path[: modules + 1])
            if kept is not None:
                self._kept.move_to_end(path[: modules + 1])
                return modules, kept
        return 0, None

    def keep(self, prefix: Prefix, buffers: dict[str, Tensor], outputs: list[Tensor]) -> None:
        """Remember a beginning; too large a one is left out by the caller."""
        self._kept[prefix] = _Kept(buffers, outputs)
        total = sum(_bytes(kept.outputs) for kept in self._kept.values())
        while total > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            total -= _bytes(dropped.outputs)


@torch.no_grad()
def recalibrate(
    network: nn.Sequential,
    batches: Iterable[Tensor],
    path: Prefix = (),
    ends: Sequence[int] = (),
    cache: PrefixCache | None = None,
) -> None:
    """Set BN's running statistics to the mean over `batches`, and leave the network in inference mode.

    Args:
        network: Its modules run one after the other.
        batches: Images (B, 3, H, W) each; not touched where the cache holds a beginning.
        path: What decides the batches, then an item for each module: equal ones have equal weights.
        ends: Numbers of modules after which what comes out may be kept.
        cache: Beginnings of earlier networks on the same batches.
    """
    start, kept = cache.longest(path) if cache else (0, None)
    modules = list(network)[start:]
    norms = [part for module in modules for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    collected: dict[int, list[Tensor]] = {end: [] for end in ends if cache and start < end < len(network)}
    for x in kept.outputs if kept else batches:
        for position, module in enumerate(modules, start + 1):
            x = module(x)
            if position in collected:
                collected[position].append(x)
        if cache:
            _shrink(collected, cache.max_bytes // 2)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if kept:
        network.load_state_dict(kept.buffers, strict=False)
    if cache:
        for end, outputs in collected.items():
            cache.keep(path[: end + 1], _buffers(network, end), outputs)


def _buffers(network: nn.Sequential, end: int) -> dict[str, Tensor]:
    """Copies of the statistics of the first `end` modules."""
    return {name: value.clone() for name, value in network.named_buffers() if int(name.split(".")[0]) < end}


def _shrink(collected: dict[int, list[Tensor]], max_bytes: int) -> None:
    """Drop the largest outputs until the rest fits."""
    sizes = {end: _bytes(outputs) for end, outputs in collected.items()}
    while sum(sizes.values()) > max_bytes:
        end = max(sizes, key=lambda end: sizes[end])
        del sizes[end], collected[end]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
