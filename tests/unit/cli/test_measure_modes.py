"""`bench measure` and its modes: each takes only options that it uses, and passes them on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import measure as cli
from orchestrator.plan.plan import Policy
from orchestrator.tasks import breakdown
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.options import ScheduleOptions
from tests.support.bench import bench, invoke
from tests.support.errors import raises
from tests.support.fake_device import VARIANT, FakeDevice

NETWORK_ONLY = [("--keep-fp32", "4"), ("--data", "digits"), ("--outside",)]
MODES = {
    "suite": ("measure", "suite", "autovit-table2", "--device", "simulated"),
    "sustained": ("measure", "sustained", "ceit-t", "--device", "simulated", "--duration", "1s"),
    "runtimes": ("measure", "runtimes", "ceit-t", "--device", "host", "--runtime", "onnx"),
}


class StoppedError(Exception):
    """Raised in place of a measurement."""


@pytest.mark.parametrize("option", NETWORK_ONLY, ids=lambda option: option[0])
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_refuses_options_that_it_does_not_use(mode: str, option: tuple[str, ...]) -> None:
    """They were accepted and ignored while the modes were options of one command."""
    done = invoke(*MODES[mode], *option)
    assert done.exit_code == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("sustained", ("--budget", "5m")),
        ("sustained", ("--seed", "1")),
        ("sustained", ("--no-self-test",)),
        ("sustained", ("--supernet", "x")),
        ("runtimes", ("--precision", "int8")),
        ("runtimes", ("--artifact", "x.onnx")),
        ("runtimes", ("--supernet", "x")),
    ],
)
def test_a_mode_has_only_its_own_options(mode: str, option: tuple[str, ...]) -> None:
    assert invoke(*MODES[mode], *option).exit_code == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("--suite", "autovit-table2"), "bench measure suite"),
        (("--sustained", "10m"), "bench measure sustained"),
        (("--sustained=10m",), "bench measure sustained"),
        (("--runtime", "onnx,litert"), "bench measure runtimes"),
        (("--runtime=litert",), "bench measure runtimes"),
    ],
)
def test_an_option_that_became_a_command_names_it(old: tuple[str, ...], new: str) -> None:
    done = bench("measure", "--device", "host", "ceit-t", *old)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert new in line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "no_network"),
        (("--artifact", "net.pte", "--keep-fp32", "4"), "keep_fp32_without_network"),
        (("ceit-t", "--outside"), "supernet_missing"),
        (("ceit-t", "--data", "digits"), "supernet_missing"),
        (("ceit-t", "--batch", "0"), "bad_batch"),
        (("ceit-t", "--classes", "3"), "classes_without_task"),
        (("ceit-t", "--allow", "rain"), "unknown_caveat"),
    ],
)
def test_refused_options(arguments: tuple[str, ...], code: str) -> None:
    with raises(code):
        invoke("measure", "--device", "simulated", *arguments)


def test_old_spellings_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @functools.wraps(measure_networks)
    def measured(options: Any, _progress: Any) -> None:
        seen.append((options.networks, options.keep_fp32))
        raise StoppedError

    monkeypatch.setattr(cli, "measure_networks", measured)
    with pytest.raises(StoppedError):
        invoke("measure", "a", "--device", "host", "--arch", "b", "--model", "c", "--fp32", "4")
    assert seen == [(("a", "b", "c"), ("4",))]


@pytest.mark.parametrize(
    ("command", "task"),
    [
        (("measure", "ceit-t"), "measure_networks"),
        (MODES["suite"][:3], "run_suite"),
        (MODES["runtimes"][:3], "measure_runtimes"),
        (("blocks",), "compare_mixers"),
        (("breakdown", "autovit-nano-paper"), "break_down"),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_schedule_options_reach_the_task(
    command: tuple[str, ...], task: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    @functools.wraps(getattr(cli, task))
    def taken(options: Any, _progress: Any) -> None:
        given.append((options.self_test, options.seed, options.budget_s, options.workers))
        raise StoppedError

    monkeypatch.setattr(cli, task, taken)
    option = [] if asked else ["--no-self-test"]
    with pytest.raises(StoppedError):
        invoke(*command, "--device", "host", "--seed", "7", "--budget", "90s", "--workers", "2", *option)
    assert given == [(asked, 7, 90, 2)]


@pytest.mark.parametrize("asked", [True, False])
def test_removals_are_measured_with_the_self_test_as_asked(
    asked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policies: list[Policy] = []

    def taken(*given: Any, **_: Any) -> None:
        policies.append(given[4])
        raise StoppedError

    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    monkeypatch.setattr(breakdown, "measure", taken)
    with pytest.raises(StoppedError):
        breakdown.measure_removals(FakeDevice({}), VARIANT, {}, {}, {}, ScheduleOptions(self_test=asked))
    assert [policy.self_test for policy in policies] == [asked]
