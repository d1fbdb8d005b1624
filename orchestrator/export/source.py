"""From an export spec to the module it means, and an input for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from luts.errors import UsageError
from orchestrator.export.spec import ExportSpec
from orchestrator.export.weights import build_seeded, load_weights, settle
from search.blocks import parse_keys
from search.networks import build_block, build_network


def build_module(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The spec's module in eval mode with its weights, and example inputs of batch 1.

    Raises:
        UsageError: timm does not know the model.
        InvalidArtifactError: the weights file is damaged or of another network.
    """
    if spec.module:
        module, inputs = _build_timm(spec)
    else:
        module, inputs = _build_blocks(spec)
    if spec.weights.startswith("sha256:"):
        load_weights(module, Path(spec.weights_path), spec.weights.removeprefix("sha256:"))
    else:
        settle(module, inputs)
    return module, inputs


def _seed(spec: ExportSpec) -> int:
    return int(spec.weights.removeprefix("seed:")) if spec.weights.startswith("seed:") else 0


def _build_blocks(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    blocks = parse_keys(spec.blocks)
    if len(blocks) == 1:
        module = build_seeded(lambda: build_block(blocks[0])[0], _seed(spec))
        _, x = build_block(blocks[0])
        return module, (x,)
    module = build_seeded(lambda: build_network(blocks), _seed(spec))
    generator = torch.Generator().manual_seed(0)
    side = blocks[0].resolution
    return module, (torch.randn(1, 3, side, side, generator=generator),)


def _build_timm(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import timm

    name = spec.module.removeprefix("timm:")
    if name not in timm.list_models():
        raise UsageError(f"timm has no model {name!r}; `python -c 'import timm; print(timm.list_models())'`")
    module = build_seeded(lambda: timm.create_model(name, pretrained=False), _seed(spec))
    shape = timm.get_pretrained_cfg(name).input_size
    return module, (torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),)
