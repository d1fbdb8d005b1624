"""Whole profiles of a simulated device: a process, a socket, the real client, journal, engine and estimators."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luts.format.lut import Lut
from orchestrator.devices.host import HostDevice, simulated_program
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.journal.records import Record
from orchestrator.journal.runs import Run
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Plan, Policy
from orchestrator.simulate.device import Scenario, write_model
from orchestrator.tasks.exported_plan import ExportedPlan
from search.spaces import get_space

PLAN = make_plan(get_space("autovit-nano"), design=24, heldout=12, removals="reference")
# Larger batches than a real device gets, so that there are few of them and tests stay quick.
POLICY = Policy(batch_models=15, max_rounds=30, max_passes=3, cooling_s=0.0)


def alike(folder: Path, number: int, speed: float) -> str:
    """The name of a simulated device; all that this makes are alike but for a twentieth, and faster or slower."""
    costs = {"own_seed": number, "own_sd": 0.03, "deviation_sd": 0.12}
    costs |= {"ms_per_mmac": 0.02 * speed, "ms_per_mib": 0.05 * speed, "constant_ms": 0.03 * speed}
    document = {"name": f"alike{number}", "costs": costs, "noise": {"load_sd": 0.002}, "noise_seed": number}
    path = folder / f"{number}.json"
    path.write_text(json.dumps(document))
    return f"simulated:{path}"


@dataclass(frozen=True)
class Profiled:
    lut: Lut
    measurement: Measurement
    records: list[Record]
    agent_starts: int


def profile(
    scenario: Scenario,
    folder: Path,
    *,
    threads: int = 1,
    plan: Plan = PLAN,
    policy: Policy = POLICY,
    disturb: Callable[[HostDevice], None] = lambda _: None,
) -> Profiled:
    """Measure the plan; `disturb` is called whenever the engine tells of progress."""
    files = {model.model_id: write_model(model.blocks, folder / "models") for model in plan.models}
    run = Run(folder / "run")
    variant = Variant("simulated", "", threads=threads)
    with HostDevice(simulated_program(scenario), folder / "store", log_path=folder / "agent.log") as device:
        measurement = measure(
            device,
            variant,
            ExportedPlan(plan, files).model_set,
            run.journal,
            policy,
            EngineOptions(budget_s=0, progress=lambda *_: disturb(device)),
        )
        starts = device.agent_starts
    lut = ExportedPlan(plan, files).lut(measurement, device.name)
    return Profiled(lut, measurement, read_log(run.journal), starts)
