"""Models in every agent: that they compute and are bound as they should, and what the store keeps of them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.agent.device import parse_cores
from orchestrator.wire.errors import AgentError
from orchestrator.wire.frames import encode_header
from tests.support.agent_programs import (
    MISSING,
    STORE_BYTES,
    Raw,
    Running,
    digest,
    load,
    put,
)
from tests.support.errors import raises
from tests.support.tiny_model import Exported


def test_model_agrees_with_pytorch(agent: Running, exported: Exported) -> None:
    with agent.greeted() as client:
        client.ensure(exported.path)
        assert client.ensure(exported.path) is False
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        assert model.load_ns > 0
        assert {"trace": False, **model.options} == {"threads": 1, "cores": "", "trace": False}
        assert [(spec.dtype, spec.shape) for spec in model.inputs] == [("float32", [1, 3, 32, 32])]
        assert [(spec.dtype, spec.shape) for spec in model.outputs] == [("float32", [1, 8])]
        assert [(part.backend, part.count) for part in model.delegates or ()] == [("XnnpackBackend", 1)]
        for _ in range(2):
            (output,) = client.check(model.handle, [exported.sample])
            np.testing.assert_allclose(output, exported.expected, atol=1e-5)
        result = client.run([model.handle], [[0, 0, 0]] * 50, warmup=3)
        assert result.samples.shape == (50, 3)
        assert result.samples.min() > 100
        assert result.samples.max() < 60e9
        assert result.state_after.uptime_ns > result.state_before.uptime_ns + result.samples.sum()
        (output,) = client.check(model.handle, [exported.sample])
        np.testing.assert_allclose(output, exported.expected, atol=1e-5)


def test_thread_count(agent: Running, exported: Exported) -> None:
    process = psutil.Process(agent.process.pid)
    with agent.greeted() as client:
        most = client.hello().device.cores
        if most < 2:
            pytest.skip("one core: there is only one thread count")
        client.ensure(exported.path)
        counts = []
        for threads in (1, 2, 1):
            model = client.load(exported.sha256, "executorch", {"threads": threads})
            client.run([model.handle], [[0]], warmup=1)
            counts.append(process.num_threads())
            with raises("options_conflict"):
                client.load(exported.sha256, "executorch", {"threads": 3 - threads})
            client.unload(model.handle)
    assert counts[1] == counts[0] + 1
    assert counts[2] == counts[0]


def test_pinned_threads(agent: Running, exported: Exported) -> None:
    def cores_of_all_threads() -> set[str]:
        statuses = Path(f"/proc/{agent.process.pid}/task").glob("*/status")
        return {re.findall(r"Cpus_allowed_list:\s*(\S+)", status.read_text())[0] for status in statuses}

    (everywhere,) = cores_of_all_threads()
    last = parse_cores(everywhere)[-1]
    with agent.greeted() as client:
        client.ensure(exported.path)
        model = client.load(exported.sha256, "executorch", {"cores": str(last)})
        assert (model.options["cores"], model.options["threads"]) == (str(last), 1)
        assert cores_of_all_threads() == {str(last)}
        result = client.run([model.handle], [[0]])
        assert {result.state_before.cores, result.state_after.cores} == {str(last)}
        for cores, code in (
            ("", "options_conflict"),
            ("4-", "bad_option"),
            ("4095", "bad_option"),
            (1, "bad_option"),
        ):
            with pytest.raises(AgentError) as refused:
                client.load(exported.sha256, "executorch", {"cores": cores, "threads": 1})
            assert refused.value.code == code
        client.unload(model.handle)
        client.load(exported.sha256, "executorch", {"threads": 1})
        assert cores_of_all_threads() == {everywhere}
        assert client.state().cores == everywhere


def test_truncated_and_huge_models_are_refused(raw: Raw, exported: Exported) -> None:
    data = exported.path.read_bytes()
    for size in (1, 7, 40, len(data) // 2, len(data) - 1):
        want = {"id": 3, "op": "load", "sha256": put(raw, data[:size]), "runtime": "executorch"}
        assert raw.code(want) == "bad_model", f"{size} bytes"
    planned = planned_bytes(exported.path)
    huge = data.replace(planned, (1 << 50).to_bytes(8, "little"))
    want = {"id": 3, "op": "load", "sha256": put(raw, huge), "runtime": "executorch"}
    assert raw.code(want) == "out_of_memory"


def planned_bytes(path: Path) -> bytes:
    from orchestrator.agent.runtime import read_pte

    planned = read_pte(path).planned_bytes.to_bytes(8, "little")
    assert path.read_bytes().count(planned) == 1
    return planned


def test_no_more_than_256_models(agent: Running, exported: Exported) -> None:
    with agent.raw() as raw:
        handles = [load(raw, exported, threads=1)["handle"]]
        want = {"id": 3, "op": "load", "sha256": exported.sha256, "runtime": "executorch"}
        want["options"] = {"threads": 1}
        handles += [raw.ask(want)["handle"] for _ in range(255)]
        assert raw.code(want) == "too_many_handles"
        assert raw.code({"id": 4, "op": "unload", "handle": handles[7]}) == "done"
        assert raw.ask(want)["handle"] not in handles


def test_a_damaged_model_is_removed(agent: Running, raw: Raw, exported: Exported) -> None:
    put(raw, exported.path.read_bytes())
    (agent.store / exported.sha256).write_bytes(b"damaged")
    want = {"id": 3, "op": "load", "sha256": exported.sha256, "runtime": "executorch"}
    assert raw.code(want) == "hash_mismatch"
    assert raw.code(want) == "unknown_model"
    assert raw.ask({"id": 3, "op": "have", "sha256": exported.sha256})["present"] is False


def test_store_keeps_loaded_models(raw: Raw, exported: Exported) -> None:
    load(raw, exported)
    old = put(raw, b"a" * (STORE_BYTES // 2))
    new = put(raw, b"b" * (STORE_BYTES - exported.path.stat().st_size))
    present = [
        raw.ask({"id": 3, "op": "have", "sha256": sha256})["present"]
        for sha256 in (exported.sha256, old, new)
    ]
    assert present == [True, False, True]
    full = b"c" * STORE_BYTES
    assert raw.code({"id": 4, "op": "put", "sha256": digest(full)}, full) == "storage_full"


def test_interrupted_put_leaves_nothing(agent: Running) -> None:
    with agent.raw() as raw:
        raw.sock.sendall(encode_header({"id": 1, "op": "put", "sha256": MISSING}, 1000) + b"half")
        raw.sock.shutdown(socket.SHUT_WR)
        reply = raw.receive()
        assert reply is not None
        assert reply["error"]["code"] == "truncated"
    with agent.raw():
        assert [path.name for path in agent.store.iterdir() if path.name.startswith(".")] == []


def test_leaving_client_ends_its_run(agent: Running, exported: Exported) -> None:
    """The next client is served long before all visits could have been made."""
    with agent.raw() as raw:
        handle = load(raw, exported, threads=1)["handle"]
        order = [[0] * 2] * 100_000
        raw.send({"id": 3, "op": "run", "handles": [handle] * 256, "order": order, "warmup": 0})
        raw.sock.shutdown(socket.SHUT_WR)
        reply = raw.receive()
        assert reply is not None
        assert reply["error"]["code"] == "cancelled"
    with agent.raw():
        pass
