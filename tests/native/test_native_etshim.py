"""The C interface over ExecuTorch: descriptions, outputs, states and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from executorch.version import __version__ as executorch_version

from orchestrator.agent.native import ShimError
from orchestrator.agent.runtime import read_pte
from tests.support.native_models import Exported, export_unplanned
from tests.support.native_shim import INVALID_ARGUMENT, INVALID_STATE, NOT_SUPPORTED, Model, Shim, Spec


@pytest.fixture
def shim(native: Path) -> Shim:
    found = Shim(native)
    found.set_threads(1)
    return found


def test_tells_version_and_backends(shim: Shim) -> None:
    assert shim.c.et_runtime_version().decode() == executorch_version
    assert "XnnpackBackend" in shim.backends()
    assert shim.c.et_backend_name(99) is None
    assert len(shim.version.removeprefix("native ")) == 64


def test_describes_a_model_before_it_is_loaded(shim: Shim, convolution: Exported, lookup: Exported) -> None:
    with shim.model(convolution.path) as model:
        assert model.inputs == [Spec("float32", (1, 3, 32, 32), 12288)]
        assert model.outputs == [Spec("float32", (1, 8), 32)]
        assert model.delegates == {"XnnpackBackend": 1}
        assert model.planned_bytes == read_pte(convolution.path).planned_bytes > 0
    with shim.model(lookup.path) as model:
        assert model.inputs == [Spec("int64", (4,), 32), Spec("float32", (4, 5), 80)]
        assert model.outputs == [Spec("float32", (4, 5), 80), Spec("bool", (4, 5), 20)]
        assert model.delegates == {}


@pytest.mark.parametrize("name", ["convolution", "lookup"])
def test_computes_what_the_python_runtime_computes(
    shim: Shim, name: str, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(name)
    with shim.model(exported.path) as model:
        model.load()
        for _ in range(3):
            for got, expected in zip(model.run(exported.inputs), exported.outputs, strict=True):
                np.testing.assert_array_equal(got, expected)


def test_inputs_are_read_when_they_are_set(shim: Shim, convolution: Exported) -> None:
    data = convolution.inputs[0].copy()
    with shim.model(convolution.path) as model:
        model.load()
        model.bind([data])
        data *= 0
        model.set_inputs()
        model.execute()
        zeros = model.read(0)
        assert not np.array_equal(zeros, convolution.outputs[0])
        data += convolution.inputs[0]
        model.set_inputs()
        model.execute()
        np.testing.assert_array_equal(model.read(0), convolution.outputs[0])


def test_inputs_without_planned_memory_are_used_where_they_lie(shim: Shim, tmp_path: Path) -> None:
    exported = export_unplanned(tmp_path / "model.pte", inputs=True, outputs=False)
    with shim.model(exported.path) as model:
        model.load()
        for got, expected in zip(model.run(exported.inputs), exported.outputs, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_refuses_outputs_without_planned_memory(shim: Shim, tmp_path: Path) -> None:
    exported = export_unplanned(tmp_path / "model.pte", inputs=False, outputs=True)
    with pytest.raises(ShimError, match="output 0 has no planned memory") as error:
        shim.model(exported.path)
    assert error.value.code == NOT_SUPPORTED


def test_visits_are_timed_in_their_order(shim: Shim, convolution: Exported, lookup: Exported) -> None:
    with shim.model(convolution.path) as slow, shim.model(lookup.path) as fast:
        for model, exported in ((slow, convolution), (fast, lookup)):
            model.load()
            model.bind(exported.inputs)
        visited = [slow, fast, fast] * 100
        latencies_ns = Model.time_visits(visited).reshape(100, 3)
        assert latencies_ns.min() > 0
        assert (np.median(latencies_ns, axis=0)[0] > np.median(latencies_ns, axis=0)[1:]).all()
        for model, exported in ((slow, convolution), (fast, lookup)):
            for index, expected in enumerate(exported.outputs):
                np.testing.assert_array_equal(model.read(index), expected)


def test_timing_ends_at_the_first_visit_that_fails(shim: Shim, convolution: Exported) -> None:
    with shim.model(convolution.path) as bound, shim.model(convolution.path) as unbound:
        bound.load()
        bound.bind(convolution.inputs)
        with pytest.raises(ShimError, match="call et_load first"):
            Model.time_visits([bound, unbound])
        unbound.load()
        with pytest.raises(ShimError, match="input 0 was not bound") as error:
            Model.time_visits([bound, unbound, bound])
        assert error.value.code == INVALID_STATE


def test_models_of_one_file_share_nothing(shim: Shim, convolution: Exported) -> None:
    with shim.model(convolution.path) as first, shim.model(convolution.path) as second:
        first.load()
        second.load()
        kept = first.run(convolution.inputs)
        second.run([convolution.inputs[0] + 1])
        np.testing.assert_array_equal(first.read(0), kept[0])


def test_threads_stay_while_a_method_is_loaded(shim: Shim, convolution: Exported) -> None:
    with shim.model(convolution.path) as model:
        shim.set_threads(2)
        assert shim.c.et_get_threads() == 2
        model.load()
        shim.set_threads(2)
        with pytest.raises(
            ShimError, match="threads=1 asked, but 1 methods are loaded with threads=2"
        ) as error:
            shim.set_threads(1)
        assert error.value.code == INVALID_STATE
        assert shim.c.et_get_threads() == 2
    shim.set_threads(1)
    assert shim.c.et_get_threads() == 1


def test_a_failed_load_does_not_hold_the_threads(shim: Shim, convolution: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pte"
    data = convolution.path.read_bytes()
    damaged.write_bytes(data.replace(b"XnnpackBackend", b"MissingBackend"))
    with shim.model(damaged) as model, pytest.raises(ShimError, match=r"NotFound \(0x20\)"):
        model.load()
    shim.set_threads(2)
    assert shim.c.et_get_threads() == 2


@pytest.mark.parametrize("threads", [0, 2**32 - 1])
def test_refuses_absurd_numbers_of_threads(shim: Shim, threads: int) -> None:
    with pytest.raises(ShimError, match="threads must be 1 to 1024"):
        shim.set_threads(threads)


def test_refuses_calls_out_of_order(shim: Shim, convolution: Exported) -> None:
    with shim.model(convolution.path) as model:
        for call in (model.set_inputs, model.execute, lambda: model.bind(convolution.inputs)):
            with pytest.raises(ShimError, match="call et_load first") as error:
                call()
            assert error.value.code == INVALID_STATE
        model.load()
        with pytest.raises(ShimError, match="loaded already"):
            model.load()
        with pytest.raises(ShimError, match="input 0 was not bound"):
            model.set_inputs()


def test_refuses_inputs_of_another_size(shim: Shim, convolution: Exported) -> None:
    with shim.model(convolution.path) as model:
        model.load()
        with pytest.raises(ShimError, match="input 0 has 12288 bytes, got 4") as error:
            model.bind([np.zeros(1, np.float32)])
        assert error.value.code == INVALID_ARGUMENT
        with pytest.raises(ShimError, match="no input 1"):
            model.bind([*convolution.inputs, np.zeros(1, np.float32)])


def test_refuses_a_missing_file(shim: Shim, tmp_path: Path) -> None:
    with pytest.raises(ShimError, match=r"AccessFailed \(0x22\)"):
        shim.model(tmp_path / "missing.pte")


@pytest.mark.parametrize("data", [b"", b"\0", b"no model at all", b"\0" * 5000, b"\xff" * 5000])
def test_refuses_what_is_not_a_program(shim: Shim, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "garbage.pte"
    path.write_bytes(data)
    with pytest.raises(ShimError, match=r"Error::\w+ \(0x"):
        shim.model(path)


def test_refuses_a_folder(shim: Shim, tmp_path: Path) -> None:
    with pytest.raises(ShimError, match=r"Error::\w+ \(0x"):
        shim.model(tmp_path)
