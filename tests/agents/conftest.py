"""Every agent that runs as a program on this machine, and a small model to give it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_programs import LANGUAGES, STORE_BYTES, Raw, Running, require_built, started

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


@pytest.fixture
def raw(agent: Running) -> Iterator[Raw]:
    with agent.raw() as connection:
        yield connection
