"""What protocol/PROTOCOL.md asks of every agent, asked of every agent that runs on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import psutil
import pytest
from agent_programs import (
    BUILT,
    ROOT,
    STORE_BYTES,
    Raw,
    Running,
    require_built,
    started,
)
from tiny_model import Exported

from orchestrator.devices.host import HostDevice
from orchestrator.devices.programs import AgentProgram, agent_program
from orchestrator.wire.errors import AgentError, AgentLost
from orchestrator.wire.frames import encode_header

GOLDEN = ROOT / "protocol/golden"
MANIFEST: list[dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_bytes())["cases"]
BROKEN = [case for case in MANIFEST if case["ends"] != "end" and not case["frames"]]

# A refused hello and an accepted bye end the connection.
ENDING = ("hello.request.json", "bye.request.json")
REQUESTS = [
    case
    for case in MANIFEST
    if case.get("valid") and case["schema"].endswith(".request.json") and case["schema"] not in ENDING
]

MISSING = "0" * 64


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def raw(agent: Running) -> Iterator[Raw]:
    with agent.raw() as connection:
        yield connection


def put(raw: Raw, data: bytes) -> str:
    assert raw.code({"id": 1, "op": "put", "sha256": digest(data)}, data) == "done"
    return digest(data)


def load(raw: Raw, exported: Exported, **options: Any) -> dict[str, Any]:
    put(raw, exported.path.read_bytes())
    fields = {"sha256": exported.sha256, "runtime": "executorch", "options": options}
    return raw.ask({"id": 2, "op": "load", **fields})


def test_starts_as_every_agent(agent: Running) -> None:
    assert agent.announced == {"port": agent.port, "pid": agent.process.pid}
    command = Path(f"/proc/{agent.process.pid}/cmdline").read_bytes()
    assert agent.token.encode() not in command


def test_listens_on_the_loopback_alone(agent: Running) -> None:
    listening = [c for c in psutil.Process(agent.process.pid).net_connections() if c.status == "LISTEN"]
    assert [(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in listening] == [
        ("127.0.0.1", agent.port)
    ]


def test_replies_keep_their_schemas(agent: Running, exported: Exported) -> None:
    """Stricter than the client, which ignores what it does not know."""
    with agent.raw() as raw:
        hello = raw.ask({"id": 1, "op": "hello", "protocol": 1, "token": agent.token})
        loaded = load(raw, exported)
        handles = {"handles": [loaded["handle"]], "order": [[0, 0]], "warmup": 1}
        replies = {
            "hello": hello,
            "load": loaded,
            "run": raw.ask({"id": 3, "op": "run", **handles}),
            "state": raw.ask({"id": 4, "op": "state"}),
            "error": raw.ask({"id": 5, "op": "fly"}),
        }
    for name, reply in replies.items():
        schema = json.loads((ROOT / f"protocol/schemas/{name}.reply.json").read_bytes())
        jsonschema.Draft202012Validator(schema).validate(reply)
        if name in ("hello", "state", "run"):
            refuse_others(schema, schema, reply)
    assert hello["device"]["simulated"] is False
    assert hello["device"]["cores"] == len(psutil.Process().cpu_affinity() or [])
    assert replies["state"]["state"]["caveats"] == []
    assert replies["state"]["state"]["agent_memory_bytes"] > 1 << 20


def refuse_others(root: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Fails where `value` has a field that the schema does not name: a misspelt one would go unseen."""
    schema = resolve(root, schema)
    if isinstance(value, dict) and "properties" in schema:
        assert set(value) <= set(schema["properties"])
        for name, inner in value.items():
            refuse_others(root, schema["properties"][name], inner)
    elif isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        for inner in value.values():
            refuse_others(root, schema["additionalProperties"], inner)


def resolve(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for option in schema.get("anyOf", []):
        if "$ref" in option:
            schema = option
    if "$ref" in schema:
        return dict(root["$defs"][schema["$ref"].rpartition("/")[2]])
    return schema


def test_same_device_and_runtime_as_the_python_agent(agent: Running, tmp_path: Path) -> None:
    from orchestrator.agent.state import describe_host

    with agent.greeted() as client:
        hello = client.hello()
    assert hello.device == describe_host()
    assert hello.runtimes["executorch"].options["threads"].max == hello.device.cores
    assert "XnnpackBackend" in hello.runtimes["executorch"].backends


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case["file"])
def test_broken_streams_are_answered_and_closed(agent: Running, case: dict[str, Any]) -> None:
    with agent.raw() as raw:
        raw.sock.sendall((GOLDEN / case["file"]).read_bytes())
        raw.sock.shutdown(socket.SHUT_WR)
        reply = raw.receive()
        assert reply is not None
        assert (reply["id"], reply["error"]["code"]) == (None, case["ends"])
        assert raw.receive() is None


HELLO = {"id": 1, "op": "hello", "protocol": 1}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (HELLO | {"token": "wrong"}, "unauthorized"),
        (HELLO | {"token": "wrong", "protocol": 2}, "unauthorized"),
        (HELLO | {"token": None, "protocol": 2}, "protocol_version"),
        (HELLO | {"token": None, "more": 1}, "bad_request"),
        (HELLO, "bad_request"),
        ({"id": 1, "op": "state"}, "unauthorized"),
        ({"id": 1, "op": "fly"}, "unauthorized"),
        ({"id": 1}, "unauthorized"),
    ],
)
def test_who_can_not_greet_is_refused(agent: Running, request_: dict[str, Any], code: str) -> None:
    """The token None stands for the right one."""
    if "token" in request_:
        request_ = request_ | {"token": request_["token"] or agent.token}
    with Raw(agent.socket()) as raw:
        reply = raw.ask(request_)
        assert (reply["id"], reply["error"]["code"]) == (1, code)
        assert raw.receive() is None


def test_refusals_tell_nothing_of_the_token(agent: Running) -> None:
    with Raw(agent.socket()) as raw:
        assert agent.token not in json.dumps(raw.ask(HELLO | {"token": agent.token[:-1]}))


def test_a_second_client_is_told_busy(agent: Running) -> None:
    with agent.raw() as first:
        with Raw(agent.socket()) as second:
            reply = second.receive()
            assert reply is not None
            assert (reply["id"], reply["error"]["code"]) == (None, "busy")
        assert first.code({"id": 1, "op": "state"}) == "done"
    with agent.raw():
        pass


def test_requests_sent_ahead_are_answered_before_the_end(raw: Raw) -> None:
    for number in range(3):
        raw.send({"id": number, "op": "state"})
    raw.sock.shutdown(socket.SHUT_WR)
    replies = [raw.receive() for _ in range(4)]
    assert [reply and reply["id"] for reply in replies] == [0, 1, 2, None]


def test_bye_is_answered_and_closes(raw: Raw) -> None:
    assert raw.ask({"id": 7, "op": "bye"}) == {"id": 7}
    assert raw.receive() is None


def test_each_failure_has_its_code_and_the_connection_goes_on(raw: Raw, exported: Exported) -> None:
    loaded = load(raw, exported, threads=1)
    handle, specs, data = loaded["handle"], loaded["inputs"], exported.sample.tobytes()
    want = {"id": 3, "op": "load", "sha256": exported.sha256, "runtime": "executorch"}
    single = want | {"options": {"threads": 1}}
    check = {"id": 4, "op": "check", "handle": handle, "inputs": specs}
    run = {"id": 5, "op": "run", "handles": [handle], "order": [[0]], "warmup": 0}
    huge = [{"dtype": "float32", "shape": [2**31 - 1] * 8}]
    garbage = put(raw, b"no model at all")
    for header, payload, code in [
        (single | {"sha256": garbage}, b"", "bad_model"),
        ({"id": 2, "op": "fly"}, b"x" * 300_000, "unknown_op"),
        ({"id": 2, "op": ["run"]}, b"", "unknown_op"),
        ({"id": 2, "op": "state", "more": 1}, b"", "bad_request"),
        ({"id": 2, "op": "state"}, b"payload", "bad_request"),
        ({"id": 2, "op": "put", "sha256": MISSING}, b"", "bad_request"),
        ({"id": 2, "op": "put", "sha256": MISSING}, b"x", "hash_mismatch"),
        ({"id": 2, "op": "put", "sha256": MISSING}, b"x" * (STORE_BYTES + 1), "storage_full"),
        (want | {"sha256": MISSING}, b"", "unknown_model"),
        (want | {"runtime": "nosuch"}, b"", "unknown_runtime"),
        (want | {"options": {"cores": 1}}, b"", "bad_option"),
        (want | {"options": {"threads": 0}}, b"", "bad_option"),
        (want | {"options": {"threads": 100_000}}, b"", "bad_option"),
        (want | {"options": {"threads": 2**70}}, b"", "bad_option"),
        (want | {"options": {"threads": True}}, b"", "bad_option"),
        (want | {"options": {"threads": "1"}}, b"", "bad_option"),
        (want | {"options": {"threads": 1.0}}, b"", "bad_request"),
        ({"id": 2, "op": "unload", "handle": 99}, b"", "unknown_handle"),
        (check | {"handle": 99}, data, "unknown_handle"),
        (check, data[:-4], "bad_input"),
        (check | {"inputs": []}, b"", "bad_input"),
        (check | {"inputs": huge}, data, "bad_input"),
        (check | {"inputs": [{"dtype": "float64", "shape": specs[0]["shape"]}]}, data, "bad_input"),
        (check | {"inputs": [{"dtype": "float31", "shape": specs[0]["shape"]}]}, data, "bad_request"),
        (run | {"handles": [handle, 99]}, b"", "unknown_handle"),
        (run | {"order": [[0], [0, 0]]}, b"", "bad_request"),
        (run | {"order": [[1]]}, b"", "bad_request"),
        (run | {"order": [[0] * 100_001] * 2}, b"", "bad_request"),
        (run | {"warmup": 1001}, b"", "bad_request"),
        (run, b"", "done"),
        ({"id": 2, "op": "unload", "handle": handle}, b"", "done"),
        (run, b"", "unknown_handle"),
    ]:
        reply = raw.ask(header, payload)
        told = {key: header[key] for key in header if key != "order"}
        assert reply.get("error", {"code": "done"})["code"] == code, (told, reply)
        assert reply["id"] == header["id"]
        if code != "done":
            assert 0 < len(reply["error"]["message"]) <= 4096
            assert "\n" not in reply["error"]["message"]


def test_ids_that_are_none(raw: Raw) -> None:
    for request_id in (-1, 2**53, 2**70, 0.5, "1", True, None, [1]):
        reply = raw.ask({"id": request_id, "op": "state"})
        assert (reply["id"], reply["error"]["code"]) == (None, "bad_request")


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case["file"])
def test_requests_are_held_to_their_schemas(raw: Raw, case: dict[str, Any]) -> None:
    """Each field is dropped, and replaced by values of other types and ranges; others may still be refused."""
    header = case["frames"][0]["header"]
    validator = jsonschema.Draft202012Validator(
        json.loads((ROOT / "protocol/schemas" / case["schema"]).read_bytes())
    )
    payload = bytes.fromhex(case["frames"][0]["payload_hex"])
    refused = 0
    for mutated in mutations({key: value for key, value in header.items() if key != "payload"}):
        code = raw.code(mutated, payload)
        if mutated.get("op") != header["op"]:
            assert code in ("unknown_op", "bad_request", "done"), mutated
        elif not validator.is_valid(mutated | ({"payload": len(payload)} if payload else {})):
            assert code == "bad_request", mutated
            refused += 1
        else:
            assert code != "internal", mutated
    assert refused >= 10


VALUES = (None, True, -1, 0, 7, 2**53, 2**64, 0.5, "", "hallo", "x" * 300, [], [1], [[0]], {}, {"a": 1})


def mutations(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
            for other in (*VALUES, *mutations(value[key])):
                yield {**value, key: other}
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            for other in (*VALUES, *mutations(item)):
                yield [*value[:index], other, *value[index + 1 :]]


def test_model_agrees_with_pytorch(agent: Running, exported: Exported) -> None:
    with agent.greeted() as client:
        client.ensure(exported.path)
        assert client.ensure(exported.path) is False
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        assert model.load_ns > 0
        assert model.options == {"threads": 1}
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


def test_thread_count_is_real_and_the_same_for_all_models(agent: Running, exported: Exported) -> None:
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
            with pytest.raises(AgentError) as refused:
                client.load(exported.sha256, "executorch", {"threads": 3 - threads})
            assert refused.value.code == "options_conflict"
            client.unload(model.handle)
    assert counts[1] == counts[0] + 1
    assert counts[2] == counts[0]


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
    from orchestrator.agent.pte import read_pte

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


def test_the_store_keeps_what_is_loaded_and_evicts_the_rest(raw: Raw, exported: Exported) -> None:
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


def test_a_client_that_leaves_in_the_middle_of_a_put_leaves_nothing(agent: Running) -> None:
    with agent.raw() as raw:
        raw.sock.sendall(encode_header({"id": 1, "op": "put", "sha256": MISSING}, 1000) + b"half")
        raw.sock.shutdown(socket.SHUT_WR)
        reply = raw.receive()
        assert reply is not None
        assert reply["error"]["code"] == "truncated"
    with agent.raw():
        assert [path.name for path in agent.store.iterdir() if path.name.startswith(".")] == []


def test_a_client_that_leaves_during_a_run_ends_it(agent: Running, exported: Exported) -> None:
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


@pytest.mark.parametrize("language", BUILT)
def test_stands_for_a_phone_where_told_to(language: str, tmp_path: Path) -> None:
    require_built(language)
    options = ("--simulate", "Pixel 8")
    allowed = "debuggable_build,low_battery"
    with (
        started(agent_program(language), tmp_path / "store", *options, BLOCKTIME_ALLOW=allowed) as agent,
        agent.greeted() as client,
    ):
        hello = client.hello()
        assert (hello.device.model, hello.device.simulated) == ("Pixel 8", True)
        assert hello.agent.name == f"blocktime-{language}"
        assert client.state().caveats == []


def test_a_full_disk_leaves_nothing_behind(program: AgentProgram, tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the space."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    large = b"x" * 300_000
    with started(program, tmp_path / "store", preexec=limit_files) as agent, agent.raw() as raw:
        assert raw.code({"id": 1, "op": "put", "sha256": digest(large)}, large) == "storage_full"
        assert list(agent.store.iterdir()) == []
        put(raw, b"small")
    assert agent.process.returncode == 0


def crash_process(pid: int) -> None:
    """Again and again: the handler of a crash may return to code that has none, and go on."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.2)
            os.kill(pid, signal.SIGSEGV)


def test_crash_of_the_runtime_is_told_and_the_agent_started_again(
    program: AgentProgram, tmp_path: Path, exported: Exported
) -> None:
    """A crash in native code can't be caught. The client names the models that were in hand; the store is kept."""
    with HostDevice(program, store_dir=tmp_path / "store", log_path=tmp_path / "log") as device:
        client = device.connect()
        client.ensure(exported.path)
        model = client.load(exported.sha256, "executorch", {"threads": 1})
        crashed = device.agent_pid
        assert crashed is not None
        crash = threading.Thread(target=crash_process, args=(crashed,))
        crash.start()
        with pytest.raises(AgentLost, match=r"lost while timing tiny\.pte"):
            while True:
                client.run([model.handle], [[0] * 1000] * 10)
        crash.join()
        with device.connect() as again:
            assert device.agent_pid not in (None, crashed)
            assert again.ensure(exported.path) is False
            again.load(exported.sha256, "executorch", {"threads": 1})


@pytest.mark.parametrize("language", BUILT)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "--store"),
        (("--store", "s", "--nosuch"), "--nosuch"),
        (("--store", "s", "--port", "x"), "--port"),
    ],
)
def test_bad_options_are_told(language: str, options: tuple[str, ...], word: str, tmp_path: Path) -> None:
    done = launched(language, tmp_path, *options, token="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr


@pytest.mark.parametrize("language", BUILT)
def test_no_token_and_a_port_in_use_are_told(language: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        store = ("--store", str(tmp_path / "s"))
        done = launched(language, tmp_path, *store, "--port", str(port), token="x")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"port {port} is in use" in done.stderr
    done = launched(language, tmp_path, *store, token="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "BLOCKTIME_TOKEN" in done.stderr


def launched(language: str, folder: Path, *options: str, token: str) -> subprocess.CompletedProcess[str]:
    """An agent that is expected to end at once."""
    require_built(language)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BLOCKTIME_TOKEN": token}
    command = [*agent_program(language).command, *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
