"""Core ML on the machine that bench runs on: through the Swift agent on a Mac, one line elsewhere."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luts.format.errors import UsageError
from orchestrator.cli.main import app, exit_code
from orchestrator.tasks.target import Target
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of a Swift agent that was not built yet, on what calls itself a Mac."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    for variable in ("BLOCKTIME_AGENTS", "BLOCKTIME_RUNS", "BLOCKTIME_LOCKS", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    agent = tmp_path / "BLOCKTIME_AGENTS/swift/blocktime-agent"
    agent.parent.mkdir(parents=True)
    return agent


def test_on_a_mac_the_swift_agent_runs_core_ml(mac: Path) -> None:
    """In its place the Python agent, which takes the same options, and says that it has no Core ML."""
    mac.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator.agent "$@"\n')
    mac.chmod(0o755)
    with (
        raises("unsupported_runtime", UsageError),
        Target("host", runtime="coreml").found(),
    ):
        pass
    with Target("host").found() as device:
        assert device.name == "host", "latencies of two agents are not mixed"


def test_an_agent_that_is_not_built_is_one_command_away(mac: Path) -> None:
    with (
        raises("agent_not_built", DeviceError) as reported,
        Target("host", runtime="coreml").found(),
    ):
        pass
    assert exit_code(reported.value) == 3


def test_elsewhere_one_line_says_where_core_ml_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with (
        raises("no_core_ml", DeviceError) as reported,
        Target("host", runtime="coreml").found(),
    ):
        pass
    assert "\n" not in str(reported.value)
    result = CliRunner().invoke(app, ["profile", "--device", "host", "--runtime", "coreml"])
    assert isinstance(result.exception, (DeviceError, SystemExit))
    assert exit_code(reported.value) == 3
