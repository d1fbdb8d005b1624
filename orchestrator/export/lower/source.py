"""From an export spec to the module it means, and an input for it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.removal import without
from orchestrator.export.lower.weights import build_seeded, calm, load_weights, rows_in, settle
from search.blocks import parse_keys
from search.blocks.whole import WIDTHS, create_timm, timm_side
from search.networks import build_block, build_network, module_of
from search.spaces import get_arch
from search.spaces.task_names import TaskName


def build_module(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The spec's module in eval mode with its weights, and example inputs of its batch.

    Raises:
        UsageError: timm does not know the model, it can't take the resolution, or it has nothing of the kind that
            is to be taken out.
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
    if spec.batch > 1:
        inputs = tuple(_repeated(x, spec.batch) for x in inputs)
    if not spec.without:
        return module, inputs
    removed = without(module, inputs, spec.without, spec.backend)
    calm(removed, inputs)
    return removed, inputs


def _repeated(x: Tensor, batch: int) -> Tensor:
    """(1, ...) -> (batch, ...), no two alike: each is shifted by its number."""
    return torch.cat([x.roll(index, -1) for index in range(batch)])


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
    """A network of timm with seeded weights: `timm:NAME` at its own resolution, `timm:NAME@PX` at another; with as
    many classes as its weights file, if there is one."""
    import timm

    if TaskName.parse(spec.module):
        return _build_timm_task(spec)
    name, _, size = spec.module.removeprefix("timm:").partition("@")
    native = timm_side(name)
    config = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0])
    classes = None
    if spec.weights_path and isinstance(config.classifier, str):
        classes = rows_in(Path(spec.weights_path), f"{config.classifier}.weight")
    side = int(size) if size else native
    try:
        module = build_seeded(lambda: create_timm(name, side, classes), _seed(spec))
        x = torch.randn(1, config.input_size[0], side, side, generator=torch.Generator().manual_seed(0))
        if side != native:
            _check_patches(module, side)
            with torch.no_grad():
                module(x)
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        if side == native:
            raise
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(
            f"timm:{name} can't take {side} px ({first[0][:200]}); its own are {native} px"
        ) from error
    return module, (x,)


def _build_timm_task(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """`timm:NAME.HEAD[CLASSES][@PX]` with seeded weights."""
    (block,) = get_arch(spec.module).blocks()
    module = build_seeded(lambda: module_of(block), _seed(spec))
    return module, (torch.randn(block.input_shape, generator=torch.Generator().manual_seed(0)),)


def _check_patches(module: nn.Module, side: int) -> None:
    """ValueError where patches don't cover the image: timm would cut the rest off without a word."""
    projection = getattr(getattr(module, "patch_embed", None), "proj", None)
    if isinstance(projection, nn.Conv2d) and projection.kernel_size == projection.stride:
        size = projection.kernel_size[0]
        if side % size:
            raise ValueError(f"its patches are {size} px wide, and {side} is not a multiple of that")
