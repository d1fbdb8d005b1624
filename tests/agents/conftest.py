"""Every agent that runs as a program on this machine, and a small model to give it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_programs import LANGUAGES, STORE_BYTES, Exported, Running, require_built, started

from orchestrator.devices.programs import AgentProgram, agent_program


@pytest.fixture(scope="module", params=LANGUAGES)
def program(request: pytest.FixtureRequest) -> AgentProgram:
    require_built(request.param)
    return agent_program(request.param)


@pytest.fixture(scope="module")
def agent(program: AgentProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One agent for all tests of a module that leave it alive."""
    store = tmp_path_factory.mktemp(program.language) / "store"
    with started(program, store, "--store-bytes", str(STORE_BYTES)) as running:
        yield running


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A convolution lowered to XNNPACK: float32[1, 3, 32, 32] to float32[1, 8]."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()
    sample = torch.randn(1, 3, 32, 32)
    program = to_edge_transform_and_lower(
        torch.export.export(network, (sample,)), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    path = tmp_path_factory.mktemp("model") / "tiny.pte"
    path.write_bytes(program.buffer)
    sha256 = hashlib.sha256(program.buffer).hexdigest()
    return Exported(path, sha256, sample.numpy(), network(sample).detach().numpy())
