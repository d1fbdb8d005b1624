"""Parts of a network by the paths of their modules: what a mix of precisions is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from luts.format.errors import UsageError


def places_of(module: nn.Module) -> tuple[str, ...]:
    """Paths of the parts that precision is chosen for, in order, each with matrices or kernels to quantise.

    They are a network's children; lists among them (timm's `blocks`, `stages`) count by their own children.
    """
    return tuple(_places(module))


def _places(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_children():
        listed = type(child) in (nn.Sequential, nn.ModuleList) and not isinstance(module, nn.Sequential)
        for path, part in (
            [(f"{name}.{n}", c) for n, c in child.named_children()] if listed else [(name, child)]
        ):
            if any(parameter.dim() > 1 for parameter in part.parameters()):
                yield path


def check_paths(name: str, module: nn.Module, paths: Sequence[str]) -> None:
    """UsageError where a network has no module of such a path."""
    known = dict(module.named_modules())
    for path in paths:
        if path not in known:
            raise UsageError(
                f"{name} has no block {path!r} to keep in fp32; it has {', '.join(places_of(module))}"
            )
