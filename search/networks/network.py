"""Torch modules of blocks, networks of a list of blocks or of timm, and a classifier's weights in a backbone."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from luts.format.errors import UsageError
from search.blocks import BlockSpec, EnclosingSpec, Group, SideSpec, check_chain, group_blocks
from search.blocks.timm_networks import TimmNetwork, as_channels_first, create_backbone, create_classifier

HEAD = "head_"
"""Prefix of module names in a head of detection or segmentation; those of a backbone are numbers."""

_BACKBONE = "backbone."
"""Prefix of the tensors of a network of timm that has such a head."""

_ONE_BLOCK = "0."
"""Prefix of the tensors of a network of timm that is built as a network of one block."""


@functools.singledispatch
def module_of(spec: BlockSpec) -> nn.Module:
    """Create the torch module of a block, with nothing inside if it encloses others.

    `@module_of.register(SqueezeExcite)` registers the class or function that creates it from the spec.

    Raises:
        UsageError: nothing is registered for the block's class or its bases.
    """
    raise _no_module(spec, "module_of")


@functools.singledispatch
def module_around(spec: EnclosingSpec, enclosed: Sequence[BlockSpec]) -> nn.Module:  # noqa: ARG001
    """Create the torch module of a block with the modules of enclosed blocks in its `layers`.

    Raises:
        UsageError: nothing is registered for the block's class, or the enclosed blocks do not follow each
        other.
    """
    raise _no_module(spec, "module_around")


module_of.register(EnclosingSpec, lambda spec: module_around(spec, ()))


def _no_module(spec: BlockSpec, function: str) -> UsageError:
    name = type(spec).__name__
    return UsageError(
        f"{spec.key} has no torch module; register one by {function}.register({name}, ...)",
        code="block_without_module",
    )


class Network(nn.Sequential):
    """Standalone network of a list of blocks for inputs (B, 3, resolution, resolution).

    Its output is (B, classes) for classification, (B, default boxes, classes + 1 + 4) for detection and
    (B, classes + 1, side, side) for segmentation.
    """

    def __init__(self, blocks: Sequence[BlockSpec]):
        groups = group_blocks(blocks)
        super().__init__(OrderedDict(zip(_module_names(groups), map(build_group, groups), strict=True)))
        self.resolution = blocks[0].resolution
        self._is_side = [isinstance(outer, SideSpec) for outer, *_ in groups]

    @override
    def forward(self, x: Tensor) -> Tensor:
        return run_with_side_outputs(self, self._is_side, x)

    def example_input(self, batch: int = 1) -> Tensor:
        """Return a fixed random input (batch, 3, resolution, resolution)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.resolution, self.resolution, generator=generator)


def _module_names(groups: Sequence[Group]) -> list[str]:
    """Return numbers for a backbone's modules as in the classifier, and `head_N` for a head's."""
    names: list[str] = []
    backbone = 0
    for outer, *_ in groups:
        names.append(f"{HEAD}{len(names) - backbone}" if outer.in_task_head else str(backbone))
        backbone += not outer.in_task_head
    return names


def run_with_side_outputs(
    modules: Iterable[nn.Module], is_side: Iterable[bool], x: Tensor, before: Sequence[Tensor] = ()
) -> Tensor:
    """Run modules in order; a side module gives an output of the network and leaves the map as it is.

    Side outputs (B, places, values), those of earlier side modules (`before`) first, are concatenated along
    places; if there are none, the last module's output is the network's.
    """
    outputs = list(before)
    for module, side in zip(modules, is_side, strict=True):
        if side:
            outputs.append(module(x))
        else:
            x = module(x)
    return torch.cat(outputs, 1) if outputs else x


class TimmTaskModule(nn.Module):
    """(B, 3, H, W) to the output of the head, as `Network` has it: a backbone of timm and a head's blocks."""

    def __init__(self, spec: TimmNetwork):
        super().__init__()
        self.backbone = create_backbone(spec.network, spec.resolution, spec.indices)
        self._earlier = len(spec.indices) - 1
        self._is_side = [isinstance(block, SideSpec) for block in spec.head_blocks]
        for index, block in enumerate(spec.head_blocks):
            self.add_module(f"{HEAD}{index}", module_of(block))

    @override
    def forward(self, x: Tensor) -> Tensor:
        *earlier, last = [as_channels_first(self.backbone, y) for y in self.backbone(x)]
        parts = [self.get_submodule(f"{HEAD}{index}") for index in range(len(self._is_side))]
        first = [part(y) for part, y in zip(parts, earlier, strict=False)]
        return run_with_side_outputs(parts[self._earlier :], self._is_side[self._earlier :], last, first)


@module_of.register
def _(spec: TimmNetwork) -> nn.Module:
    if spec.head:
        return TimmTaskModule(spec)
    return create_classifier(spec.network, spec.resolution, spec.classes)


def build_network(blocks: Sequence[BlockSpec]) -> Network:
    """Create the network of a chain of blocks.

    Raises:
        UsageError: two of the blocks do not fit.
    """
    check_chain(blocks)
    return Network(blocks)


class Prefix(nn.Sequential):
    """Segment of a network up to an exit, whose classifier is the last module.

    Its outputs are logits (B, classes) and the map (B, channels, H, W) that the rest of the network takes.
    """

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *stages, classifier = self.children()
        for module in stages:
            x = module(x)
        return classifier(x), x


def build_segment(blocks: Sequence[BlockSpec], segment: str) -> nn.Sequential:
    """Create a `prefix` up to an exit, the `tail` that takes the prefix's map, or with "" a whole network.

    Raises:
        UsageError: two of the blocks do not fit.
    """
    check_chain(blocks, from_map=segment == "tail")
    network = Network(blocks)
    return Prefix(OrderedDict(network.named_children())) if segment == "prefix" else network


def build_group(group: Group) -> nn.Module:
    """Create the module of a block and of those that it encloses."""
    outer, *enclosed = group
    return module_around(outer, enclosed) if isinstance(outer, EnclosingSpec) else module_of(outer)


def build_block(spec: BlockSpec) -> tuple[nn.Module, Tensor]:
    """Create the module of one block and an input for it; a transformer layer takes tokens (P, N, d)."""
    generator = torch.Generator().manual_seed(0)
    return module_of(spec), torch.randn(spec.input_shape, generator=generator)


@dataclass(frozen=True)
class LoadedBackbone:
    """Result of `load_backbone`.

    Attributes:
        loaded: Number of tensors that were copied.
        unused: Names of the given tensors that were not, such as the classifier's.
    """

    loaded: int
    unused: tuple[str, ...]


def is_head(name: str) -> bool:
    """Whether a parameter of a network belongs to its detection or segmentation head."""
    return name.removeprefix(_ONE_BLOCK).startswith(HEAD)


def load_backbone(network: nn.Module, tensors: Mapping[str, Tensor]) -> LoadedBackbone:
    """Copy a classifier's weights by name into the backbone of a detector or segmentation network.

    The classifier's tensors are named as in `build_network` or, for networks of timm, as timm names them.

    Raises:
        UsageError: a tensor of the backbone is missing or has another shape; nothing is changed then.
    """
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not is_head(name) and not name.endswith("num_batches_tracked")
    }
    common_name = _timm_name if any(_BACKBONE in name for name in own) else str
    sources = {common_name(name): name for name in tensors}
    missing = [name for name in own if common_name(name) not in sources]
    if missing:
        raise _other_backbone(
            f"the weights lack {len(missing)} of the backbone's {len(own)} tensors, first {missing[0]}"
        )
    given = {name: tensors[sources[common_name(name)]] for name in own}
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            raise _other_backbone(
                f"{sources[common_name(name)]} is {tuple(given[name].shape)} in the weights, "
                f"{tuple(tensor.shape)} in the backbone"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])
    used = {sources[common_name(name)] for name in own}
    unused = (name for name in tensors if name not in used and not name.endswith("num_batches_tracked"))
    return LoadedBackbone(len(own), tuple(unused))


def _other_backbone(problem: str) -> UsageError:
    return UsageError(f"{problem}; use weights of a classifier with this backbone", code="other_backbone")


def _timm_name(name: str) -> str:
    """Return a name that a tensor of timm has in classifiers and backbones alike.

    Backbones have flattened names (`stages_0.1.x` for `stages.0.1.x`) or a prefix `model.`.
    """
    name = name.removeprefix(_ONE_BLOCK).removeprefix(_BACKBONE).removeprefix("model.")
    return name.replace("_", ".")
