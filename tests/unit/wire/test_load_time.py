"""`load_ns` of the Python agent: the runtime's time for program and method, as PROTOCOL.md defines it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.agent import executorch
from orchestrator.agent.executorch import ExecutorchRuntime
from orchestrator.agent.runtime import Model, PteSummary


class OneLoader:
    """Loads one model; nothing else is asked of it."""

    version = "test"

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    def backends(self) -> list[str]:
        return []

    def set_threads(self, threads: int) -> None:
        self.asked.append("threads")

    def load(self, path: Path, traced: bool) -> Model:
        self.asked.append("load")
        return Model()


def test_the_time_of_a_load_is_that_of_program_and_method_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def clock() -> int:
        asked.append("clock")
        return 40 * len(asked)

    def read_pte(path: Path) -> PteSummary:
        asked.append("file")
        return PteSummary((), 0, {})

    monkeypatch.setattr(executorch, "read_pte", read_pte)
    monkeypatch.setattr(executorch, "require_memory", lambda needed_bytes: asked.append("memory"))
    path = tmp_path / "model.pte"
    path.write_bytes(b"")
    model = ExecutorchRuntime(OneLoader(asked), clock).load(path, {"threads": 1})
    assert asked == ["file", "memory", "threads", "clock", "load", "clock"]
    assert model.load_ns == 80
