"""BN statistics of a subnet's own, for a copy of its weights.

A supernet's statistics would mix all subnets, so each gets those of its own on training images (BigNAS, Yu et
al. 2020, section 3.4). While they are taken BN normalises by the batch, so what comes out of a network's first
stages depends on these stages alone: subnets that begin alike share it, and the statistics on the way there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.supernet.inherit.prefixes import Buffers, Prefix, PrefixCache, PrefixRun


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
    run = PrefixRun(network, path, ends, cache)
    norms = [part for module in run.modules for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for _ in run.outputs(batches):
        pass
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if run.kept:
        network.load_state_dict(run.kept.buffers, strict=False)
    run.keep(lambda end: _buffers(network, end))


def _buffers(network: nn.Sequential, end: int) -> Buffers:
    """Copies of the statistics of the first `end` modules."""
    return {name: value.clone() for name, value in network.named_buffers() if int(name.split(".")[0]) < end}
