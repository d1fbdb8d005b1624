"""The two kernels that tell what a machine reaches: a matrix product and a copy, lowered as networks are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from orchestrator.export.build import export_module
from orchestrator.wire.client import ModelFile

SIDE = 512
"""Of the product's three matrices: each is a MiB, so operands stay in the second cache and its loops are long."""

ROWS, COLUMNS = 4096, 1024
"""Of what is copied: 16 MiB to another 16, which no second cache holds."""


class _Copied(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(1, ROWS + 1, COLUMNS) -> (1, ROWS, COLUMNS): all but the first row, in one piece."""
        return x[:, 1:]


@dataclass(frozen=True)
class Kernel:
    """A model file, and what it does in one execution."""

    file: ModelFile
    macs: int
    data_bytes: int


def kernels(folder: Path) -> tuple[Kernel, Kernel]:
    """The matrix product and the copy, as XNNPACK programs in `folder`.

    Raises:
        BlocktimeError: they can't be exported.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        product, square = nn.Linear(SIDE, SIDE, bias=False).eval(), torch.randn(SIDE, SIDE)
        rows = torch.randn(1, ROWS + 1, COLUMNS)
    matmul = _made(product, square, folder / "product.pte")
    copy = _made(_Copied().eval(), rows, folder / "copy.pte")
    return Kernel(matmul, SIDE**3, 3 * 4 * SIDE**2), Kernel(copy, 0, 2 * 4 * ROWS * COLUMNS)


def _made(module: nn.Module, x: Tensor, path: Path) -> ModelFile:
    export_module(module, (x,), path)
    return ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
