"""What `--plan-only` says of compiling for a neural engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from luts.format.store import LutStore
from orchestrator.tasks.plan import PlanOptions, ProfileCommand, plan_profile
from orchestrator.tasks.target import Target
from tests.support.errors import raises


def test_compiling_has_minutes_where_earlier_runs_saw_some(tmp_path: Path) -> None:
    plain = plan_profile(
        ProfileCommand(
            space="autovit-nano",
            target=Target("simulated"),
            plan=PlanOptions(models=12),
            store=LutStore([tmp_path]),
        )
    )
    assert "first loads" not in plain.facts()
    unknown = replace(plain, compiled=12).facts()["first loads"]
    assert unknown.startswith(
        "12 models are compiled for the neural engine on the device, once each: seconds to"
    )
    known = replace(plain, compiled=12, compile_s=480.0, first_loads=3).facts()["first loads"]
    assert known.endswith("about 8.0 minutes in addition to measuring, by 3 first loads of earlier runs")


@pytest.mark.parametrize(
    "option",
    [{"fresh": True}, {"reuse": True}, {"name": "phone"}, {"run_folder": Path("run")}],
)
def test_an_option_of_the_measurement_is_refused(option, tmp_path: Path) -> None:
    with raises("nothing_measured"):
        plan_profile(ProfileCommand(target=Target("simulated"), store=LutStore([tmp_path]), **option))
