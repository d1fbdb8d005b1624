"""Which weights stand still where a run trains only what comes after its network's first stages."""

from __future__ import annotations

from typing import Any

from luts.format.errors import UsageError
from search.spaces.whole import is_timm
from search.supernet.model.supernet import Supernet


def frozen_parameters(supernet: Supernet, stages: int) -> frozenset[str]:
    """Names of the parameters of the first stages.

    Raises:
        UsageError: the space's networks need not have as many.
    """
    if not stages:
        return frozenset()
    groups = _stages(supernet)
    if stages > len(groups):
        raise UsageError(
            f"--freeze {stages}: {supernet.space.name} has networks of {len(groups)} stages; "
            f"freeze 0 to {len(groups)}"
        )
    return frozenset(name for group in groups[:stages] for name in group)


def _stages(supernet: Supernet) -> list[list[str]]:
    """Parameters of each stage that all networks of a space have; of timm's, of its groups but the classifier."""
    space = supernet.space
    names = [name for name, _ in supernet.named_parameters()]
    if not is_timm(space.name):
        stages = space.stages[: min(space.stage_counts)]
        return [[name for name in names if name.startswith(f"slots.{stage.name}_")] for stage in stages]
    from timm.models import group_parameters

    (slot,) = supernet.slots
    network: Any = supernet.slots[slot]
    groups = group_parameters(network, network.group_matcher(coarse=True))
    return [[f"slots.{slot}.{name}" for name in groups[index]] for index in sorted(groups)][:-1]
