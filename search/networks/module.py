"""The torch module of a block, by the block's class: the file of each family registers its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import nn

from luts.format.errors import UsageError
from search.blocks import BlockSpec, EnclosingSpec


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
