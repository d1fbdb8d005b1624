"""Operators of published networks: none unexplained.

One network in every run, those of 60 families in `make slow`, since lowering one takes half a minute.
"""

from collections import Counter

import pytest

from orchestrator.export import ExportSpec
from orchestrator.export.lower.operators import lower_with_operators
from orchestrator.export.lower.source import build_module
from tests.support.slow import mostly_slow
from tests.support.timm_families import NETWORKS

KEPT = ["lcnet_050@64"]


@pytest.mark.parametrize("name", mostly_slow(NETWORKS, KEPT))
def test_no_operator_is_unexplained(name: str) -> None:
    _, operators = lower_with_operators(*build_module(ExportSpec(module=f"timm:{name}")))
    kinds = Counter(operator.kind for operator in operators)
    assert kinds["border"] >= 1
    assert kinds["gemm"] + kinds["conv"] + kinds["bmm"] > 1
    assert kinds["other"] == 0
