"""`bench doctor --device host --smoke`, with ExecuTorch; tests/phones/android/test_smoke.py has a phone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.tasks.doctor import DoctorOptions, check_machine
from orchestrator.wire.client import AgentClient
from tests.support.bench import answer
from tests.support.errors import raises

STEPS = ["found", "exported", "connected", "sent", "loaded", "checked", "timed"]


@pytest.fixture(autouse=True)
def luts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a LUT would be."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    return tmp_path / "luts"


def test_the_host_goes_through_the_whole_chain_without_a_lut(luts: Path) -> None:
    rows = json.loads(answer("doctor", "--device", "host", "--smoke", "--threads", "1", "--json"))
    assert [row["step"] for row in rows] == STEPS
    results = {row["step"]: row["result"] for row in rows}
    assert results["found"] == "host"
    assert results["checked"].endswith(" of PyTorch")
    assert results["timed"].endswith(" ms")
    assert list(luts.parent.iterdir()) == []


def test_outputs_that_are_not_pytorchs_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    check = AgentClient.check

    def wrong(self: AgentClient, handle: int, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [1.01 * output for output in check(self, handle, inputs)]

    monkeypatch.setattr(AgentClient, "check", wrong)
    with raises("wrong_outputs", InvalidArtifactError):
        check_machine(DoctorOptions(device="host", smoke=True))


def test_it_needs_a_device_that_computes() -> None:
    with raises("simulated_device", UsageError):
        check_machine(DoctorOptions(device="simulated", smoke=True))
    for options in (
        DoctorOptions(smoke=True),
        DoctorOptions(device="host"),
        DoctorOptions(smoke=True, bundle=Path("report.zip")),
        DoctorOptions(device="host", smoke=True, bundle=Path("report.zip")),
    ):
        with raises("incomplete_options", UsageError):
            check_machine(options)
