"""A network is its blocks, one after the other; a detector also gives what blocks beside its maps predict."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luts.format.errors import UsageError
from search.blocks import BlockSpec, EnclosingSpec, Group, SideSpec, check_chain, group_blocks


@functools.singledispatch
def module_of(spec: BlockSpec) -> nn.Module:
    """A new torch module of a block, with nothing inside where it encloses others.

    `module_of.register(SqueezeExcite, Gated)` registers what makes it, a function or a class that takes the spec.

    Raises:
        UsageError: nothing is registered for the block's class or a class that it extends.
    """
    raise _missing(spec, "module_of")


@functools.singledispatch
def module_around(spec: EnclosingSpec, enclosed: Sequence[BlockSpec]) -> nn.Module:  # noqa: ARG001
    """A new torch module of a block that encloses others, with theirs in its `layers`; registered as `module_of`.

    Raises:
        UsageError: nothing is registered for the block's class, or the enclosed blocks do not follow each other.
    """
    raise _missing(spec, "module_around")


module_of.register(EnclosingSpec, lambda spec: module_around(spec, ()))


def _missing(spec: BlockSpec, function: str) -> UsageError:
    name = type(spec).__name__
    return UsageError(f"{spec.key} has no torch module; register one by {function}.register({name}, ...)")


HEAD = "head_"
"""What names of modules in a head of detection or segmentation begin with; those of a backbone are numbers."""


class Network(nn.Sequential):
    """Standalone network of a list of blocks for inputs (B, 3, resolution, resolution).

    Its output is a classifier's (B, classes), a detector's (B, default boxes, classes + 1 + 4), or of segmentation
    (B, classes + 1, side, side).
    """

    def __init__(self, blocks: Sequence[BlockSpec]):
        groups = group_blocks(blocks)
        super().__init__(OrderedDict(zip(_names(groups), map(build_group, groups), strict=True)))
        self.resolution = blocks[0].resolution
        self._beside = [isinstance(outer, SideSpec) for outer, *_ in groups]

    def forward(self, x: Tensor) -> Tensor:
        return run_beside(self, self._beside, x)

    def example_input(self, batch: int = 1) -> Tensor:
        """A fixed input of the network's shape."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.resolution, self.resolution, generator=generator)


def _names(groups: Sequence[Group]) -> list[str]:
    """As a classifier's backbone is named, whatever stands between its modules here."""
    names: list[str] = []
    backbone = 0
    for outer, *_ in groups:
        names.append(f"{HEAD}{len(names) - backbone}" if outer.in_task_head else str(backbone))
        backbone += not outer.in_task_head
    return names


def run_beside(
    parts: Iterable[nn.Module], beside: Iterable[bool], x: Tensor, before: Sequence[Tensor] = ()
) -> Tensor:
    """Run parts in order, of which some stand `beside` and leave the map as it is.

    Returns:
        Outputs (B, places, values) of those end to end, behind those that came `before`; where there are none, the
        last part's output.
    """
    outputs = list(before)
    for part, leaves in zip(parts, beside, strict=True):
        if leaves:
            outputs.append(part(x))
        else:
            x = part(x)
    return torch.cat(outputs, 1) if outputs else x


def build_network(blocks: Sequence[BlockSpec]) -> Network:
    """Build the network of a chain of blocks; `UsageError` where two of them do not fit."""
    check_chain(blocks)
    return Network(blocks)


def build_group(group: Group) -> nn.Module:
    """The module of a block and of those that it encloses."""
    outer, *enclosed = group
    return module_around(outer, enclosed) if isinstance(outer, EnclosingSpec) else module_of(outer)


def build_block(spec: BlockSpec) -> tuple[nn.Module, Tensor]:
    """One block on its own, and an input for it; a transformer layer takes tokens (P, N, d)."""
    generator = torch.Generator().manual_seed(0)
    return module_of(spec), torch.randn(spec.input_shape, generator=generator)


_BACKBONE = "backbone."
"""What tensors of a network of timm begin with beside a head."""

_ONE_BLOCK = "0."
"""What names in a network of timm begin with where it is built as a network of one block."""

_NEXT = "give the weights of a classifier with this very backbone"


@dataclass(frozen=True)
class Loaded:
    """How many tensors of the backbone were taken, and names of the file's that were not (the classifier's)."""

    taken: int
    left: tuple[str, ...]


def is_head(name: str) -> bool:
    """Whether a parameter of a network belongs to its head of another task."""
    return name.removeprefix(_ONE_BLOCK).startswith(HEAD)


def load_backbone(network: nn.Module, tensors: Mapping[str, Tensor]) -> Loaded:
    """Copy a classifier's weights into the backbone of a network with a task's head, by name.

    Args:
        network: Of `build_network`.
        tensors: The classifier's, as `build_network` names them, or of timm's networks as timm does.

    Raises:
        UsageError: a tensor of the backbone is missing or of another shape; nothing is changed then.
    """
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not is_head(name) and not name.endswith("num_batches_tracked")
    }
    plain = _timm if any(_BACKBONE in name for name in own) else str
    sources = {plain(name): name for name in tensors}
    wrong = [name for name in own if plain(name) not in sources]
    if wrong:
        raise UsageError(
            f"the weights lack {len(wrong)} of the backbone's {len(own)} tensors, {wrong[0]} first; {_NEXT}"
        )
    taken = {name: tensors[sources[plain(name)]] for name in own}
    for name, tensor in own.items():
        if taken[name].shape != tensor.shape:
            shapes = f"{tuple(taken[name].shape)} in the weights, {tuple(tensor.shape)} in the backbone"
            raise UsageError(f"{sources[plain(name)]} is {shapes}; {_NEXT}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(taken[name])
    used = {sources[plain(name)] for name in own}
    left = (name for name in tensors if name not in used and not name.endswith("num_batches_tracked"))
    return Loaded(len(own), tuple(left))


def _timm(name: str) -> str:
    """What a tensor of timm is called everywhere: its networks of maps have flattened names, `stages_0.1.x` for
    `stages.0.1.x`, or `model.` before theirs."""
    name = name.removeprefix(_ONE_BLOCK).removeprefix(_BACKBONE).removeprefix("model.")
    return name.replace("_", ".")
