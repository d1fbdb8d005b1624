"""Every agent that runs as a program on this machine, and a small model to give it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.agent.device import AGENTS_VARIABLE
from orchestrator.agent.programs import AgentProgram, agent_program
from tests.support.agent_programs import BINDING, PROGRAMS, STORE_BYTES, Raw, Running, require_built, started


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AgentProgram:
    if request.param != BINDING:
        require_built(request.param)
        return agent_program(request.param)
    python, empty = agent_program("python"), tmp_path_factory.mktemp("nothing-built")
    return replace(python, command=("env", f"{AGENTS_VARIABLE}={empty}", *python.command))


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
