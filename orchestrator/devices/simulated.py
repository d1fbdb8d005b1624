"""Simulated devices by name: `simulated`, `simulated:SCENARIO`, `simulated:FILE.json`."""

from __future__ import annotations

import sys

from orchestrator.agent.programs import AgentProgram
from orchestrator.simulate.device import Scenario, find_scenario

PREFIX = "simulated"
DEFAULT_SCENARIO = "quiet"


def scenario_of(device_name: str) -> Scenario | None:
    """Return the scenario in the name of a simulated device, None for any other device.

    Raises:
        UsageError: Unknown scenario.
    """
    prefix, colon, rest = device_name.partition(":")
    if prefix != PREFIX:
        return None
    return find_scenario(rest if colon else DEFAULT_SCENARIO)


def simulated_program(scenario: Scenario) -> AgentProgram:
    """Return the agent program that simulates a device in this scenario."""
    return AgentProgram(
        language="python",
        command=(sys.executable, "-m", "orchestrator.simulate", "--scenario", scenario.model_dump_json()),
        device_name=f"{PREFIX}-{scenario.name}",
        title=f"a simulated device, scenario {scenario.name}: for tests and planning only",
    )
