"""Agents of simulated phones for whole runs.

Latencies are simulated and models are lists of blocks; everything between `bench` and the agent's runtime is real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.agent.agent import Agent
from orchestrator.agent.device import agent_info
from orchestrator.agent.store import ModelStore
from orchestrator.export import Artifact, ArtifactCache, ExportSpec
from orchestrator.export.artifacts.artifact import Report
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Plan
from orchestrator.simulate.device import SCENARIOS, Scenario, SimulatedModelFile
from orchestrator.simulate.machine import Machine, SimulatedModel
from orchestrator.tasks import models, plan
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import DeviceInfo, DeviceState, OptionInfo, OptionValue, RuntimeInfo
from search.spaces import Space

OPTIONS = {
    "executorch": {"threads": OptionInfo(type="int", default=4, min=1, max=9)},
    "coreml": {"compute_units": OptionInfo(type="str", default="all", choices=["all", "cpuonly"])},
}


class _Model(SimulatedModel):
    """Is refused a run while the app is not in front, as phones' agents do."""

    def __init__(self, loaded: SimulatedModel, machine: Machine, in_front: Callable[[], bool]) -> None:
        super().__init__(machine, loaded.quiet_ns, loaded.threads)
        self._in_front = in_front

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        if not self._in_front():
            raise AgentError("not_ready", "background: the app is not in front; open it")
        return super().prepare(arrays)


class _Runtime:
    """Runs lists of blocks with the simulated latencies of `machine` under a real runtime's name and options."""

    def __init__(self, name: str, machine: Machine, in_front: Callable[[], bool]) -> None:
        self._name, self._machine, self._in_front = name, machine, in_front

    def describe(self) -> RuntimeInfo:
        return RuntimeInfo(version="simulated", backends=["XnnpackBackend"], options=OPTIONS[self._name])

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> SimulatedModel:
        assert set(options) == set(OPTIONS[self._name])
        return _Model(self._machine.load(path, {}), self._machine, self._in_front)


class SimulatedAgents:
    """The agents of one phone, one for each start, with one runtime; `in_front`: whether the app is, now."""

    def __init__(
        self,
        runtime: str,
        model: str,
        store: Path,
        in_front: Callable[[], bool] = lambda: True,
        scenario: Scenario = SCENARIOS["quiet"],
    ) -> None:
        self._machine = Machine(scenario)
        self._runtimes = {runtime: _Runtime(runtime, self._machine, in_front)}
        self._model, self._store, self._in_front = model, store, in_front

    def start(self, token: str) -> Agent:
        """An agent with that token."""
        device = DeviceInfo(
            model=self._model,
            os="no system",
            os_build="1",
            soc=None,
            cores=9,
            memory_bytes=4 << 30,
            simulated=True,
        )
        return Agent(
            token,
            ModelStore(self._store, 1 << 30),
            self._runtimes,
            agent_info(),
            device,
            self._machine.clock_ns,
            self._state,
            spin=None,
        )

    def _state(self) -> DeviceState:
        return self._machine.read_state().model_copy(update={"foreground": self._in_front()})


def shorten(patch: pytest.MonkeyPatch, cache: Path, exporting: Callable[[], None] = lambda: None) -> None:
    """A plan of six models for every budget, exported as lists of blocks; `exporting` is called meanwhile."""

    def small(space: Space, *_: Any, **options: Any) -> Plan:
        chosen = {name: options[name] for name in ("resolutions", "seed", "expectation")}
        return make_plan(space, design=3, heldout=2, removals="none", **chosen)

    def export(specs: Sequence[ExportSpec], **_: Any) -> list[Artifact]:
        exporting()
        return [ArtifactCache(cache).put(spec, lambda path, spec=spec: _write(spec, path)) for spec in specs]

    patch.setattr(plan, "plan_for_budget", small)
    for name in ("export_many", "export_each"):
        patch.setattr(models, name, export)


def _write(spec: ExportSpec, path: Path) -> Report:
    path.write_text(SimulatedModelFile(blocks=spec.blocks).model_dump_json())
    return Report(
        delegates=1, operators=(), max_abs_error=None, max_relative_error=None, tolerance=1, export_s=1
    )
