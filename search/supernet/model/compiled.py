"""torch.compile for a supernet: module by module, since whole subnets hardly ever come again and modules do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from search.blocks import Group
from search.supernet.model.elastic import run_with, weightless_module

LIMIT = 512
"""Modules that one run compiles; later ones run as they are. AutoViT's spaces have about 240 at one resolution."""

Backend = str | Callable[..., object]
Call = Callable[[Mapping[str, Tensor], Tensor], Tensor]


class CompiledModules:
    """Runs the modules of groups on weights from elsewhere, compiled at their first call."""

    def __init__(self, limit: int = LIMIT, backend: Backend = "inductor"):
        self.limit, self.backend = limit, backend
        self.calls: dict[Group, Call] = {}

    def run(self, group: Group, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What `run_with` gives for the module of `group`."""
        if group not in self.calls and len(self.calls) < self.limit:
            self.calls[group] = _compiled(weightless_module(group), self.backend)
        call = self.calls.get(group)
        return call(weights, x) if call else run_with(weightless_module(group), weights, x)


def obstacle(device: torch.device, backend: Backend = "inductor") -> str | None:
    """Why nothing can be compiled for a device, in one line; None where a small function can."""
    try:
        _compiled(nn.SiLU(), backend)({}, torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler, the search for one or its absence raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return None


def _compiled(module: nn.Module, backend: Backend) -> Call:
    def call(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(weights), (x,))
        return out

    compiled: Call = torch.compile(  # type: ignore[call-overload]  # its overloads lack `isolate_recompiles`
        call, backend=backend, dynamic=False, isolate_recompiles=True
    )
    return compiled
