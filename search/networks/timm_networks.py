"""Networks of timm as modules of blocks, alone or with a detection or segmentation head."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from search.blocks import SideSpec
from search.blocks.timm_networks import (
    TimmNetwork,
    TimmTaskNetwork,
    as_channels_first,
    create_backbone,
    create_classifier,
)
from search.networks.network import HEAD, module_of, run_with_side_outputs


@module_of.register
def _(spec: TimmNetwork) -> nn.Module:
    return create_classifier(spec.network, spec.resolution, spec.classes)


class TimmTaskModule(nn.Module):
    """(B, 3, H, W) to the output of the head; see `search.networks.network.Network`."""

    def __init__(self, spec: TimmTaskNetwork):
        """Create the backbone and the head's modules."""
        super().__init__()
        self.backbone = create_backbone(spec.network, spec.resolution, spec.indices)
        self._earlier = len(spec.indices) - 1
        blocks = spec.head_blocks
        modules = [module_of(block) for block in blocks]
        self._is_side = [isinstance(block, SideSpec) for block in blocks]
        names = [f"{HEAD}{index}" for index in range(len(blocks))]
        for name, module in zip(names, modules, strict=True):
            self.add_module(name, module)
        self._names = names

    @override
    def forward(self, x: Tensor) -> Tensor:
        *earlier, last = [as_channels_first(self.backbone, y) for y in self.backbone(x)]
        parts = [self.get_submodule(name) for name in self._names]
        first = [part(y) for part, y in zip(parts, earlier, strict=False)]
        return run_with_side_outputs(parts[self._earlier :], self._is_side[self._earlier :], last, first)


module_of.register(TimmTaskNetwork, TimmTaskModule)
