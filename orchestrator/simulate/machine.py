"""A simulated device behind the agent's interfaces: runtime, clock and state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from luts.format.errors import InvalidArtifactError
from orchestrator.agent.runtime import Model, checked_options
from orchestrator.journal.conditions import HOT_HEADROOM
from orchestrator.simulate.device import GroundTruth, Processor, Scenario, read_model
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import (
    DeviceInfo,
    DeviceState,
    OptionInfo,
    OptionValue,
    RuntimeInfo,
    ThermalZone,
)

RUNTIME = "simulated"
"""Name of the runtime; no real one has it."""

_FAIR_SHARE = 0.8
"""Fraction of the way from ambient to the throttling temperature from which the device reports `fair`."""


class SimulatedModel(Model):
    """A load of a list of blocks.

    It has no inputs and no outputs: nothing is computed, so that nothing can be mistaken for a result.
    """

    def __init__(self, machine: Machine, quiet_ns: float, threads: int) -> None:
        """Load a model whose undisturbed execution takes `quiet_ns`."""
        self.options = {"threads": threads}
        self.quiet_ns, self.threads = quiet_ns, threads
        self._machine = machine

    def execute(self) -> None:
        """Execute the model once."""
        self._machine.execute(self)

    def close(self) -> None:
        """Free the model."""
        self._machine.unload()


class Machine:
    """Loads and executes in simulated time; implements the agent's Runtime.

    Only loads, executions and the pauses between batches (`scenario.pause_s`) take simulated time, not what
    happens outside, such as the client's own sleep.
    """

    def __init__(self, scenario: Scenario) -> None:
        """Simulate a scenario."""
        self.scenario = scenario
        self._options = {"threads": OptionInfo(type="int", default=1, min=1, max=scenario.cores)}
        self._processor = Processor(scenario.noise, scenario.cores, scenario.noise_seed)
        self._truth = cache(lambda threads: GroundTruth(scenario.costs, threads))
        self._loaded = self._in_a_row = 0
        self._last: SimulatedModel | None = None
        self._reported_heat = False
        self._taken_ns = self._processor.now_ns

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""
        return RuntimeInfo(version=self.scenario.name, backends=[], options=self._options)

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> SimulatedModel:
        """Load a model file; raises AgentError."""
        threads = int(checked_options(RUNTIME, options, self._options)["threads"])
        try:
            blocks = read_model(path)
        except InvalidArtifactError as error:
            raise AgentError("bad_model", str(error)) from None
        self._processor.rest(self.scenario.load_ms / 1e3)
        quiet_ns = self._truth(threads).latency_ms(blocks) * 1e6 * self._processor.draw_load()
        self._loaded += 1
        return SimulatedModel(self, quiet_ns, threads)

    def execute(self, model: SimulatedModel) -> None:
        """Spend the time of an execution; after another model's execution the caches lack this model's data."""
        noise = self.scenario.noise
        self._in_a_row = self._in_a_row + 1 if model is self._last else 0
        crowd = 1.0 + (noise.crowd_share if self._loaded > noise.crowd_models else 0.0)
        self._processor.execute(model.quiet_ns * crowd, model.threads, cold=self._in_a_row < noise.cold_runs)
        self._last = model

    def unload(self) -> None:
        """Note that a model is freed; after the last one the device pauses, for long if it reported heat."""
        self._loaded -= 1
        if self._loaded == 0:
            self._last = None
            scenario = self.scenario
            self._processor.rest(scenario.cooling_s if self._reported_heat else scenario.pause_s)
            self._reported_heat = False

    def rest(self, seconds: float) -> None:
        """Let simulated time pass without work."""
        self._processor.rest(seconds)

    def clock_ns(self) -> int:
        """Return the simulated time."""
        return self._processor.now_ns

    def read_state(self) -> DeviceState:
        """Return the state that a phone would report; no throttling if the scenario hides it.

        It is read before and after every run: there real time passes too, if the scenario asks for that.
        """
        self._spend_real_time()
        if self.scenario.trip_ms:
            self._processor.rest(self.scenario.trip_ms / 1e3)
        case, celsius = self.scenario.noise.throttling, self._processor.celsius
        thermal_state: Literal["nominal", "fair", "serious"] | None = None
        headroom, zones = None, []
        if case is not None and celsius is not None and case.reported:
            headroom = (celsius - case.ambient_c) / (case.hot_c - case.ambient_c)
            throttled = self._processor.throttled
            thermal_state = "serious" if throttled else "fair" if headroom > _FAIR_SHARE else "nominal"
            self._reported_heat |= throttled or headroom >= HOT_HEADROOM
            zones = [ThermalZone(name="case", celsius=celsius)]
        return DeviceState(
            uptime_ns=self._processor.now_ns,
            load_average_1m=None,
            cpus=[],
            steal_ms=None,
            thermal_state=thermal_state,
            thermal_headroom=headroom,
            thermal_zones=zones,
            throttle_count=None,
            battery=None,
            low_power_mode=None,
            free_memory_bytes=None,
            agent_memory_bytes=None,
            qos=None,
            foreground=None,
        )

    def _spend_real_time(self) -> None:
        passed_ns, self._taken_ns = self._processor.now_ns - self._taken_ns, self._processor.now_ns
        if self.scenario.real_time:
            time.sleep(self.scenario.real_time * passed_ns / 1e9)

    def device_info(self) -> DeviceInfo:
        """Return the device's name, which says that it is simulated."""
        return DeviceInfo(
            model=f"simulated {self.scenario.name}",
            os="no system",
            os_build=None,
            soc="no processor",
            cores=self.scenario.cores,
            memory_bytes=0,
            simulated=True,
        )
