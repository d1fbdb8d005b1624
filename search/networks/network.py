"""A network is its blocks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luts.errors import UsageError
from search.blocks import (
    BlockSpec,
    Conv,
    FcHead,
    MBConv,
    MbPoolHead,
    MobileViTLayer,
    MobileViTShell,
    check_chain,
)
from search.networks.layers import Classifier, InvertedResidual, build_conv
from search.networks.mobilevit import MobileViTBlock, TransformerLayer


class Network(nn.Sequential):
    """Standalone network of a list of blocks; input (B, 3, resolution, resolution), output (B, classes)."""

    def __init__(self, blocks: Sequence[BlockSpec]):
        super().__init__(*_modules(blocks))
        self.resolution = blocks[0].resolution

    def example_input(self, batch: int = 1) -> Tensor:
        """A fixed input of the network's shape."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.resolution, self.resolution, generator=generator)


def build_network(blocks: Sequence[BlockSpec]) -> Network:
    """Build the network of a chain of blocks; `UsageError` where two of them do not fit."""
    check_chain(blocks)
    return Network(blocks)


def build_block(spec: BlockSpec) -> tuple[nn.Module, Tensor]:
    """One block on its own, and an input for it; a transformer layer takes tokens (P, N, d)."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(spec, MobileViTLayer):
        return TransformerLayer(spec), torch.randn(spec.pixels, spec.patches, spec.dim, generator=generator)
    x = torch.randn(1, spec.in_channels, spec.resolution, spec.resolution, generator=generator)
    return _module(spec, []), x


def _modules(blocks: Sequence[BlockSpec]) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for index, block in enumerate(blocks):
        if isinstance(block, MobileViTLayer):
            continue
        layers: list[MobileViTLayer] = []
        for following in blocks[index + 1 :]:
            if not isinstance(following, MobileViTLayer):
                break
            layers.append(following)
        modules.append(_module(block, layers))
    return modules


def _module(block: BlockSpec, layers: list[MobileViTLayer]) -> nn.Module:
    match block:
        case Conv():
            return build_conv(block)
        case MBConv():
            return InvertedResidual(block)
        case MobileViTShell():
            return MobileViTBlock(block, layers)
        case FcHead() | MbPoolHead():
            return Classifier(block)
    raise UsageError(f"no network module for {block.key}")
