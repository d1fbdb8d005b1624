"""Operators of a .pte that are left to other kernels than its delegates."""

from pathlib import Path

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from orchestrator.agent.runtime import read_pte
from tests.support.tiny_model import Exported


class TwoSinesAndASum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(torch.sin(x)) + x


def test_calls_outside_the_delegates_are_counted(tmp_path: Path, exported: Exported) -> None:
    program = torch.export.export(TwoSinesAndASum(), (torch.zeros(2, 3),))
    path = tmp_path / "portable.pte"
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    assert read_pte(path).operators == {"aten.add.out": 1, "aten.sin.out": 2}
    assert read_pte(exported.path).operators == {}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="no readable ExecuTorch program|no method"):
        read_pte(path)
