"""`--no-self-test` reaches the policy of every command that measures; a sustained run refuses it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from luts.format.errors import UsageError
from orchestrator.cli.main import app
from orchestrator.journal.runs import Run
from orchestrator.plan.plan import Policy
from orchestrator.tasks.mixers import compare_mixers
from tests.support.fake_device import VARIANT, FakeDevice


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("command", "task"),
    [
        (("blocks",), "orchestrator.cli.blocks.compare_mixers"),
        (("breakdown", "--model", "autovit-nano-paper"), "orchestrator.cli.breakdown.break_down"),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_the_option_reaches_the_task(
    command: tuple[str, ...], task: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []

    def taken(*_: Any, self_test: bool, **__: Any) -> None:
        given.append(self_test)
        raise UsageError("enough")

    monkeypatch.setattr(task, taken)
    option = [] if asked else ["--no-self-test"]
    CliRunner().invoke(app, [*command, "--device", "host", *option])
    assert given == [asked]


@pytest.mark.parametrize("asked", [True, False])
def test_removals_are_measured_by_that_policy(
    asked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    removing = importlib.import_module("orchestrator.breakdown.removing")
    policies: list[Policy] = []

    def taken(_: object, __: object, ___: object, ____: object, policy: Policy, **_____: Any) -> None:
        policies.append(policy)
        raise Stopped

    monkeypatch.setattr(removing, "measure", taken)
    with pytest.raises(Stopped):
        removing.measure_removals(
            FakeDevice({}),
            VARIANT,
            {},
            {},
            Run(tmp_path),
            {},
            budget_s=0,
            seed=0,
            self_test=asked,
            progress=lambda *_: None,
        )
    assert [policy.self_test for policy in policies] == [asked]


def test_blocks_are_measured_by_that_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []

    def taken(*_: Any, self_test: bool, **__: Any) -> None:
        given.append(self_test)
        raise Stopped

    monkeypatch.setattr("orchestrator.tasks.mixers.measure_files", taken)
    with pytest.raises(Stopped):
        compare_mixers("simulated", blocks=["mha"], width=32, resolutions=[16], self_test=False)
    assert given == [False]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--budget", "5m"), "--budget"),
        (("--seed", "1", "--no-self-test"), "--seed, --no-self-test"),
    ],
)
def test_a_sustained_run_refuses_what_it_has_no_use_for(options: tuple[str, ...], named: str) -> None:
    done = CliRunner().invoke(
        app, ["measure", "--device", "host", "--model", "ceit-t", "--sustained", "1m", *options]
    )
    assert isinstance(done.exception, UsageError)
    assert f"leave {named} out" in str(done.exception)
