"""Capture a module in fp16 for XNNPACK, with fp32 inputs and outputs.

ExecuTorch's delegate takes fp16 tensors as they are, and no conversion between types. torch decomposes SiLU and
hard-swish of halves with conversions to fp32 around them, which would cut the network at each one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator.export.lower.spelled import SpelledOut, spelled_out


class _Half(nn.Module):
    """A module in fp16 between fp32 inputs and outputs."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.module(*(x.half() for x in inputs))
        return out.float()


class _SpelledInHalf(SpelledOut):
    """With activations as operations that stay fp16."""

    @property
    def spellings(self) -> Mapping[Any, Callable[..., Any]]:
        """By the function in torch."""
        return {**super().spellings, F.silu: _silu, F.hardswish: _hardswish}

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """ExecuTorch makes fp32 tensors of numbers, and converts them; those of sums and products are halves."""
        if func in _WITH_NUMBERS:
            args = [torch.tensor(x, dtype=torch.half) if isinstance(x, float) else x for x in args]
        return super().__torch_function__(func, types, args, kwargs)


_WITH_NUMBERS = {
    torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__,
    torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__,
    torch.sub, Tensor.sub, Tensor.__sub__, torch.div, Tensor.div, Tensor.__truediv__,
}  # fmt: skip


def capture_half(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """The exported program of a module in eval mode, its weights and arithmetic in fp16."""
    return torch.export.export(spelled_out(_Half(module).eval(), _SpelledInHalf), tuple(inputs))


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x) (Elfwing et al. 2017, equation 6)."""
    del inplace
    return x * torch.sigmoid(x)


def _hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6 (Howard et al. 2019, section 5.2)."""
    del inplace
    return x * (F.relu6(x + 3.0) * (1.0 / 6.0))
