"""Designed programs: a name decides modules and sizes, the same ones on each machine."""

import hashlib

import pytest
import torch
from torch import nn

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.programs import CHAINS, PORTABLE, Program
from orchestrator.export.lower.source import build_module
from tests.support.errors import raises


def design(name: str) -> str:
    program = Program(name)
    sizes = [(type(m).__name__, *(tuple(p.shape) for p in m.parameters())) for m in program]
    return f"{program.input_shape} {sizes}"


def test_a_name_decides_sizes_on_each_machine() -> None:
    assert design("chain:dense-0") == design("chain:dense-0") != design("chain:dense-1")
    names = [f"chain:{kind}-{seed}" for kind in CHAINS for seed in range(3)]
    every = hashlib.sha256("".join(map(design, names)).encode()).hexdigest()
    assert every[:16] == "f4bc889fa4ebcfb2", (
        "designs changed: tables of operators name other programs than before"
    )


@pytest.mark.parametrize(
    "name", [f"chain:{kind}-0" for kind in CHAINS] + [f"portable:{kind}-0" for kind in PORTABLE]
)
def test_programs_run_with_finite_outputs(name: str) -> None:
    module, inputs = build_module(ExportSpec(module=name))
    with torch.no_grad():
        outputs = module(*inputs)
    assert outputs.isfinite().all()
    assert 0 < outputs.abs().max() < 1e4


def test_a_chain_repeats_one_kind() -> None:
    program = Program("chain:grouped-0")
    convolutions = [module for module in program if isinstance(module, nn.Conv2d)]
    assert len(convolutions) >= 2
    assert len({(c.in_channels, c.kernel_size, c.groups) for c in convolutions}) == 1
    assert convolutions[0].groups > 1


@pytest.mark.parametrize("name", ["chain:no_such-1", "portable:no_such-1"])
def test_unknown_kinds_are_named(name: str) -> None:
    with raises("unknown_network", UsageError) as caught:
        build_module(ExportSpec(module=name))
    assert "no_such" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["chain:dense", "chain:dense-x", "chain:../dense-1", "other:dense-1", "chain:dense-1@64"]
)
def test_other_names_are_no_modules(name: str) -> None:
    with raises("unknown_network", UsageError):
        ExportSpec(module=name)
