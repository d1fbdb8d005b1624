"""`python -m orchestrator.simulate --scenario JSON`: the agent of a simulated device with simulated time."""

from __future__ import annotations

import functools
import sys

from luts.format.errors import UsageError
from orchestrator.agent.agent import Agent
from orchestrator.agent.device import SOURCES, agent_info
from orchestrator.agent.server import program_options, run_program
from orchestrator.agent.store import ModelStore
from orchestrator.simulate.device import Scenario, parse_scenario
from orchestrator.simulate.machine import RUNTIME, Machine
from orchestrator.wire.errors import exit_code
from search.spaces.plugins import load_installed


def simulated_agent(scenario: Scenario, token: str, store: ModelStore) -> Agent:
    """Return the agent of a simulated device; its version changes with the scenario."""
    machine = Machine(scenario)
    settings = scenario.model_dump_json().encode()
    return Agent(
        token=token,
        store=store,
        runtimes={RUNTIME: machine},
        info=agent_info("blocktime-simulated", (*SOURCES, "simulate"), settings),
        device=machine.device_info(),
        clock=machine.clock_ns,
        sleep=machine.rest,
        state=machine.read_state,
        spin=None,
    )


def main() -> int:
    """Run the agent and return the exit code."""
    parser = program_options("python -m orchestrator.simulate", __doc__)
    parser.add_argument("--scenario", required=True, help="the scenario's JSON")
    options = parser.parse_args()
    try:
        load_installed()
        scenario = parse_scenario(options.scenario)
    except UsageError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    return run_program(options, functools.partial(simulated_agent, scenario))


if __name__ == "__main__":
    sys.exit(main())
