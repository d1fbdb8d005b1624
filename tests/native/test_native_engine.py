"""The Python agent's way to the runtime: native calls where they were built, the binding else and to trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.agent import executorch
from orchestrator.agent import native as etshim
from orchestrator.agent.device import AGENTS_VARIABLE
from orchestrator.agent.executorch import ExecutorchRuntime, find_loader
from orchestrator.agent.host import host_agent
from orchestrator.agent.native import NativeModel, ShimMissingError, find_shim
from orchestrator.agent.store import ModelStore
from orchestrator.agent.timing import time_schedule
from orchestrator.wire.errors import AgentError
from tests.support.errors import raises
from tests.support.native_models import Exported


@pytest.fixture
def runtime(native: Path, monkeypatch: pytest.MonkeyPatch) -> ExecutorchRuntime:
    monkeypatch.setenv(AGENTS_VARIABLE, str(native.parent))
    return ExecutorchRuntime(find_loader())


def never() -> int:
    raise AssertionError("the interpreter read the clock")


def test_native_models_are_timed_without_the_interpreters_clock(
    runtime: ExecutorchRuntime, convolution: Exported, lookup: Exported
) -> None:
    models = [runtime.load(exported.path, {"threads": 1}) for exported in (convolution, lookup)]
    samples = time_schedule(models, [[0, 1, 1]] * 4, 1, lambda _: True, never)
    assert samples.shape == (4, 3)
    assert samples.dtype == np.dtype(">u8")
    assert samples.min() > 0
    rounds_asked = iter([True, True, False])
    with raises("cancelled"):
        time_schedule(models, [[0, 1]] * 4, 0, lambda _: next(rounds_asked), never)
    for model in models:
        model.close()


def test_a_traced_model_next_to_a_native_one_shares_its_runtime(
    runtime: ExecutorchRuntime, convolution: Exported
) -> None:
    plain = runtime.load(convolution.path, {"threads": 2})
    traced = runtime.load(convolution.path, {"threads": 2, "trace": True})
    with pytest.raises(AgentError, match="2 models are loaded with threads=2"):
        runtime.load(convolution.path, {"threads": 1, "trace": True})
    ticks = iter(range(100))
    samples = time_schedule([plain, traced], [[0, 1]] * 3, 2, lambda _: True, lambda: next(ticks))
    assert samples.tolist() == [[1, 1]] * 3
    assert plain.take_operations(2) == []
    assert [operation.name for operation in traced.take_operations(2)]
    for model in (plain, traced):
        model.prepare(convolution.inputs)()
        model.execute()
        np.testing.assert_array_equal(model.get_outputs()[0], convolution.outputs[0])
        model.close()
    runtime.load(convolution.path, {"threads": 1}).close()


def test_a_failure_in_the_timed_part_is_the_runs(
    runtime: ExecutorchRuntime, convolution: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = runtime.load(convolution.path, {"threads": 1})
    monkeypatch.setattr(model, "prepare", lambda arrays: None)
    with raises("run_failed") as failed:
        time_schedule([model], [[0]], 0, lambda _: True, never)
    assert "the runtime failed: input 0 was not bound" in str(failed.value)
    model.close()


def test_a_model_that_fails_to_load_leaves_nothing_loaded(
    runtime: ExecutorchRuntime, convolution: Exported, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(convolution.path.read_bytes().replace(b"XnnpackBackend", b"MissingBackend"))
    with raises("bad_model") as refused:
        runtime.load(damaged, {"threads": 1})
    assert "NotFound" in str(refused.value)
    model = runtime.load(convolution.path, {"threads": 2})
    assert isinstance(model, NativeModel)
    model.close()


def test_the_agents_version_tells_the_way(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = []
    for folder, way in ((native.parent, "+native"), (tmp_path, "+binding")):
        monkeypatch.setenv(AGENTS_VARIABLE, str(folder))
        versions.append(host_agent("token", ModelStore(tmp_path / "store")).info.version)
        assert versions[-1].endswith(way)
        assert len(versions[-1]) <= 64
    assert versions[0].partition("+")[0] != versions[1].partition("+")[0]


def test_unusable_library_names_the_next_step(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AGENTS_VARIABLE, str(tmp_path))
    with pytest.raises(
        ShimMissingError, match=r"not built .*libetshim\.so is not there\); run `bench doctor native`"
    ):
        find_shim()
    path = tmp_path / "native" / "libetshim.so"
    path.parent.mkdir()
    path.write_bytes(b"no library")
    with pytest.raises(ShimMissingError, match=r"can't be used .*; run `bench doctor native`"):
        find_shim()
    monkeypatch.setenv(AGENTS_VARIABLE, str(native.parent))
    monkeypatch.setattr(etshim, "executorch_version", "9.9")
    with pytest.raises(
        ShimMissingError, match=r"built for ExecuTorch .*, not 9\.9; run `bench doctor native`"
    ):
        find_shim()


def test_a_system_without_core_numbers_has_no_option_for_them(
    convolution: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executorch, "allowed_cores", lambda: ())
    runtime = ExecutorchRuntime(find_loader())
    assert "cores" not in runtime.describe().options
    with pytest.raises(AgentError, match="executorch has no option 'cores'; it has: threads, trace"):
        runtime.load(convolution.path, {"cores": "0-1"})
