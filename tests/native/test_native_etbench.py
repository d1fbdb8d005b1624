"""The bare benchmark program, spoken to as the comparison of agents does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.native_models import Exported


class Bench:
    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, *words: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> int:
        """The exit status after the end of stdin."""
        self._process.communicate(timeout=300)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def bench(native: Path) -> Iterator[Bench]:
    started = Bench(native / "etbench")
    yield started
    started.kill()


def test_times_models_that_were_loaded(bench: Bench, convolution: Exported, lookup: Exported) -> None:
    for handle, exported in enumerate((convolution, lookup), start=1):
        loaded = bench.ask("load", exported.path, 1)
        assert loaded["handle"] == handle
        assert loaded["load_ns"] > 0
    for handle in (1, 2):
        for verb in ("run", "forward"):
            latencies_ns = bench.ask(verb, handle, 20, 3)["ns"]
            assert len(latencies_ns) == 20
            assert min(latencies_ns) > 0
    assert bench.close() == 0


def test_runs_without_warm_up_and_until_the_model_is_unloaded(bench: Bench, convolution: Exported) -> None:
    bench.ask("load", convolution.path, 2)
    assert len(bench.ask("run", 1, 1, 0)["ns"]) == 1
    assert bench.ask("unload", 1) == {"unloaded": 1}
    assert bench.ask("run", 1, 1, 0) == {"error": "no handle 1"}


def test_all_loaded_models_agree_on_the_threads(bench: Bench, convolution: Exported) -> None:
    bench.ask("load", convolution.path, 1)
    assert "threads=2 asked" in bench.ask("load", convolution.path, 2)["error"]
    bench.ask("unload", 1)
    assert bench.ask("load", convolution.path, 2)["handle"] == 2


def test_says_why_a_model_cannot_be_loaded(bench: Bench, convolution: Exported, tmp_path: Path) -> None:
    missing = bench.ask("load", tmp_path / "missing.pte", 1)["error"]
    assert "AccessFailed (0x22)" in missing
    assert "No such file" in missing
    path = tmp_path / "other.pte"
    path.write_bytes(convolution.path.read_bytes().replace(b"XnnpackBackend", b"MissingBackend"))
    assert "Backend MissingBackend is not registered" in bench.ask("load", path, 1)["error"]
    # The next failure is not explained by the last one's log.
    assert "MissingBackend" not in bench.ask("load", tmp_path, 1)["error"]


@pytest.mark.parametrize(
    "request_line",
    ["", "fly", "load", "load model.pte", "load model.pte one", "run 1", "run 1 200001 0"],
)
def test_answers_an_error_to_a_request_that_it_does_not_understand(bench: Bench, request_line: str) -> None:
    assert bench.ask(request_line).keys() == {"error"}
    assert bench.ask("unload", 7) == {"error": "no handle 7"}
