"""ONNX Runtime and LiteRT next to ExecuTorch: the same visits, the same weights, one interleaved run."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from luts.format.errors import BlocktimeError, UsageError
from orchestrator.agent import host
from orchestrator.agent.host import host_agent
from orchestrator.agent.store import ModelStore
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.build import export_spec
from orchestrator.export.lower import other_runtimes
from orchestrator.journal.log import read_log
from orchestrator.plan.plan import Policy
from orchestrator.tasks import runtimes as task
from orchestrator.tasks import target
from orchestrator.tasks.runtimes import (
    RuntimeResult,
    RuntimesCommand,
    measure_runtimes,
    parse_runtimes,
    rank_correlations,
)
from orchestrator.tasks.target import DeviceOptions, Target
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError
from tests.support.bench import invoke
from tests.support.errors import raises
from tests.support.fake_device import POLICY
from tests.support.other_runtimes import TINY_TFLITE, sha256, tiny_onnx
from tests.support.served_agent import ServedDevice
from tests.support.tiny_model import Exported

KEYS = ("conv(in=3,out=8,k=3,s=2)@16", "head.fc(in=8,classes=10)@8")


@pytest.fixture(scope="module")
def files(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    made = tiny_onnx(tmp_path_factory.mktemp("onnx"))
    return {"executorch": exported.path, "onnx": made, "litert": TINY_TFLITE}


@pytest.fixture
def device(tmp_path: Path):
    with ServedDevice(host_agent("t" * 32, ModelStore(tmp_path / "store"))) as served:
        served.name = "host"
        yield served


@pytest.mark.parametrize("runtime", ["onnx", "litert"])
def test_a_runtime_computes_and_is_timed_as_executorch_is(runtime, files, exported, device) -> None:
    with device.connect() as client:
        reported = client.hello().runtimes[runtime]
        assert reported.version[0].isdigit()
        assert list(reported.options) == ["threads"]
        client.ensure(files[runtime])
        first, second = (client.load(sha256(files[runtime]), runtime, {"threads": 1}) for _ in range(2))
        assert [(spec.dtype, spec.shape) for spec in first.inputs] == [("float32", [1, 3, 32, 32])]
        assert [(spec.dtype, spec.shape) for spec in first.outputs] == [("float32", [1, 8])]
        (other,) = client.check(second.handle, [exported.sample + 1])
        for _ in range(2):
            (output,) = client.check(first.handle, [exported.sample])
            np.testing.assert_allclose(output, exported.expected, atol=1e-5)
        assert np.abs(other - exported.expected).max() > 1e-3
        (kept,) = client.check(second.handle, [exported.sample + 1])
        np.testing.assert_array_equal(kept, other)
        client.ensure(exported.path)
        beside = client.load(exported.sha256, "executorch", {"threads": 1})
        result = client.run([first.handle, beside.handle], [[0, 1], [1, 0]] * 5, warmup=2)
        assert result.samples.shape == (10, 2)
        assert result.samples.min() > 0


@pytest.mark.parametrize("runtime", ["onnx", "litert"])
def test_what_a_runtime_refuses_is_one_line(runtime, files, exported, device) -> None:
    with device.connect() as client:
        client.ensure(exported.path)
        client.ensure(files[runtime])
        with raises("bad_model"):
            client.load(exported.sha256, runtime, {"threads": 1})
        for options, says in (
            ({"threads": 99}, "threads must be 1 to"),
            ({"cores": "0"}, "no option 'cores'"),
        ):
            with pytest.raises(AgentError, match=says):
                client.load(sha256(files[runtime]), runtime, options)


@pytest.fixture
def compared(files, device, monkeypatch, tmp_path):
    """`measure_runtimes` on the served agent, of models that are exported already."""
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(target, "resolve", lambda *_: contextlib.nullcontext(device))
    monkeypatch.setattr(Policy, "of", classmethod(lambda *_: POLICY))

    def given(variant, specs, *_):
        path = files[variant.runtime]
        assert all((spec.runtime, spec.precision) == (variant.runtime, "fp32") for spec in specs.values())
        return {name: ModelFile(path, sha256(path)) for name in specs}, {}, {}

    monkeypatch.setattr(task, "exportable_files", given)
    options = RuntimesCommand(
        networks=("autovit-xxs-paper",), target=DeviceOptions("host"), threads=1, budget_s=5
    )
    return lambda: measure_runtimes(options)


def test_one_interleaved_run_of_the_same_weights(compared, tmp_path) -> None:
    result = compared()
    assert [row.runtime for row in result.rows] == ["executorch", "onnx", "litert"]
    assert result.rows[0].ratio == 1
    assert result.rows[0].difference == 0
    assert all(row.difference < 1e-5 and row.ms > 0 for row in result.rows)
    assert all(row.ci_low <= row.ms <= row.ci_high for row in result.rows)
    assert not result.tau, "the order of one network says nothing"
    (journal,) = (tmp_path / "runs").rglob("*.jsonl")
    identity = read_log(journal)[0].identity
    assert identity.runtime == ", ".join(f"{name} {version}" for name, version in result.versions.items())
    assert identity.variant == "executorch-xnnpack-fp32-t1"
    order = [record.order for record in read_log(journal) if record.kind == "chunk"]
    assert {len(set(visits)) for chunk in order for visits in chunk} == {4}, "three models, one of them twice"


def test_a_runtime_that_is_not_installed_is_one_line(compared, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(host, "installed_runtimes", dict)
    with ServedDevice(host_agent("t" * 32, ModelStore(tmp_path / "bare"))) as bare:
        bare.name = "host"
        monkeypatch.setattr(target, "resolve", lambda *_: contextlib.nullcontext(bare))
        with pytest.raises(UsageError, match=r"ONNX Runtime is not installed; .*pip install -e '\.\[onnx\]'"):
            compared()


def test_tau_is_of_the_order_of_networks() -> None:
    def rows(runtime, latencies):
        return [RuntimeResult(str(i), runtime, ms, ms, ms, 1, 0, 0, 1) for i, ms in enumerate(latencies)]

    three = rank_correlations(rows("executorch", [1, 2, 3, 4]) + rows("onnx", [2, 1, 3, 4]))
    assert three == {("executorch", "onnx"): pytest.approx(4 / 6)}
    assert rank_correlations(rows("executorch", [1, 2]) + rows("onnx", [1, 2])) == {}


def test_names_of_runtimes_and_their_variants() -> None:
    assert parse_runtimes("onnx, litert,onnx") == ("onnx", "litert")
    assert parse_runtimes("executorch,onnx") == ("onnx",)
    for text in ("onnx,coreml", "executorch", ""):
        with raises("unknown_runtime"):
            parse_runtimes(text)
    variant = Target("host", runtime="litert", threads=2).variant
    assert variant.name == "litert-cpu-fp32-t2"
    assert Variant.parse(variant.name) == variant
    with pytest.raises(UsageError, match="onnx/cpu has no precision 'int8'; it has fp32"):
        Variant("onnx", "cpu", "int8", 1)


def test_runtimes_are_compared_on_the_host() -> None:
    with raises("host_only"):
        invoke("measure", "runtimes", "autovit-xxs-paper", "--runtime", "onnx", "--device", "pixel8")


def test_a_network_is_exported_to_onnx_and_compared_with_pytorch(tmp_path) -> None:
    pytest.importorskip("onnxscript")
    artifact = export_spec(ExportSpec(KEYS, runtime="onnx"), ArtifactCache(tmp_path))
    assert artifact.path.name == "model.onnx"
    assert artifact.report.max_relative_error < 1e-5
    assert (artifact.delegates, artifact.outside) == (None, None)


@pytest.mark.slow
@pytest.mark.skipif(not other_runtimes.CONVERTER.is_file(), reason="litert-torch is not there: make litert")
def test_a_network_is_converted_to_litert_and_compared_with_pytorch(tmp_path) -> None:
    artifact = export_spec(ExportSpec(KEYS, runtime="litert"), ArtifactCache(tmp_path))
    assert artifact.path.suffix == ".tflite"
    assert artifact.report.max_relative_error < 1e-5


def test_a_converter_that_fails_or_is_not_there_is_one_line(tmp_path, monkeypatch) -> None:
    inputs = (torch.zeros(1, 2),)
    monkeypatch.setattr(other_runtimes, "CONVERTER", tmp_path / "python")
    with pytest.raises(BlocktimeError, match="run `make litert`"):
        other_runtimes.lower_to_litert(torch.nn.Identity(), inputs)
    monkeypatch.setattr(other_runtimes, "CONVERTER", Path(sys.executable))
    fails = "raise SystemExit('no lowering for aten.roll')"
    monkeypatch.setattr(other_runtimes, "_CONVERSION", fails)
    with pytest.raises(BlocktimeError, match="LiteRT can't express this model: no lowering for aten.roll"):
        other_runtimes.lower_to_litert(torch.nn.Linear(2, 2), inputs)
