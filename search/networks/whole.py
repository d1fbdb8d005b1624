"""Networks of timm as modules of blocks."""

from __future__ import annotations

from torch import nn

from search.blocks.whole import WholeNetwork, create_timm
from search.networks.module import module_of


@module_of.register
def _(spec: WholeNetwork) -> nn.Module:
    return create_timm(spec.network, spec.resolution, spec.classes)
