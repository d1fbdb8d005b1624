"""Operators of published networks: none unexplained, and the file alone gives what lowering recorded.

Four networks in every run, those of 60 families in `make sweeps`, since lowering one takes half a minute.
"""

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.export import ExportSpec
from orchestrator.export.lower.operators import lower_with_operators, read_operators
from orchestrator.export.lower.source import build_module
from tests.support.soak import rest_soaks
from tests.support.timm_families import NETWORKS

KEPT = ["edgenext_xx_small@64", "lcnet_050@64", "mobilenetv2_050@64", "regnety_002@64"]


@pytest.mark.parametrize("name", rest_soaks(NETWORKS, KEPT))
def test_no_operator_is_unexplained(name: str, tmp_path: Path) -> None:
    data, recorded = lower_with_operators(*build_module(ExportSpec(module=f"timm:{name}")))
    path = tmp_path / "net.pte"
    path.write_bytes(data)
    assert read_operators(path) == recorded
    kinds = Counter(operator.kind for operator in recorded)
    assert kinds["border"] >= 1
    assert kinds["gemm"] + kinds["conv"] + kinds["bmm"] > 1
    assert kinds["other"] == 0
