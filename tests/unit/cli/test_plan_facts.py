"""What `--plan-only` says of compiling for a neural engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from luts.format.store import LutStore
from orchestrator.cli.plan import _facts
from orchestrator.tasks.plan import PlanChoice, plan_profile


def test_compiling_has_minutes_where_earlier_runs_saw_some(tmp_path: Path) -> None:
    plain = plan_profile("autovit-nano", "simulated", PlanChoice(models=12), store=LutStore([tmp_path]))
    assert "first loads" not in _facts(plain)
    unknown = _facts(replace(plain, compiled=12))["first loads"]
    assert unknown.startswith(
        "12 models are compiled for the neural engine on the device, once each: seconds to"
    )
    known = _facts(replace(plain, compiled=12, compile_s=480.0, first_loads=3))["first loads"]
    assert known.endswith("about 8.0 minutes beside those of measuring, by 3 first loads of earlier runs")
