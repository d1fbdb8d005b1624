"""Operators of a .pte that are left to other kernels than its delegates."""

from pathlib import Path

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from orchestrator.agent.runtime import operators_outside
from tests.support.tiny_model import Exported


class TwoSinesAndASum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(torch.sin(x)) + x


def test_calls_outside_the_delegates_are_counted(tmp_path: Path, exported: Exported) -> None:
    program = torch.export.export(TwoSinesAndASum(), (torch.zeros(2, 3),))
    path = tmp_path / "portable.pte"
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    assert operators_outside(path) == {"aten.add.out": 1, "aten.sin.out": 2}
    assert operators_outside(exported.path) == {}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="no readable ExecuTorch program|no method"):
        operators_outside(path)
