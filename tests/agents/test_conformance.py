"""What protocol/PROTOCOL.md asks of every agent on the wire, asked of every agent that runs on this machine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from tests.support.agent_programs import (
    MISSING,
    ROOT,
    STORE_BYTES,
    Raw,
    Running,
    load,
    put,
)
from tests.support.tiny_model import Exported

GOLDEN = ROOT / "protocol/golden"
MANIFEST: list[dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_bytes())["cases"]
BROKEN = [case for case in MANIFEST if case["ends"] != "end" and not case["frames"]]

# Of a connection's first frame.
MAX_HELLO_BYTES = 4096

# A refused hello and an accepted bye end the connection.
ENDING = ("hello.request.json", "bye.request.json")
REQUESTS = [
    case
    for case in MANIFEST
    if case.get("valid") and case["schema"].endswith(".request.json") and case["schema"] not in ENDING
]


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
        handles = {
            "handles": [loaded["handle"]],
            "order": [[0, 0]],
            "warmup": 1,
            "warmup_ms": 5,
            "pace_us": 100,
        }
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
    assert hello["timed_warmup"] is hello["pace"] is True
    assert replies["run"]["warmed"]["ns"] >= 5_000_000
    assert hello["device"]["simulated"] is False
    assert hello["device"]["cores"] == len(psutil.Process().cpu_affinity() or [])
    assert replies["state"]["state"]["caveats"] == []
    memory = replies["state"]["state"]
    assert memory["agent_memory_bytes"] > 1 << 20
    assert memory["agent_peak_memory_bytes"] > 0.9 * memory["agent_memory_bytes"], "another count of the same"


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
    from orchestrator.agent.device import describe_host, threads_by_default

    with agent.greeted() as client:
        hello = client.hello()
    assert hello.device == describe_host()
    threads = hello.runtimes["executorch"].options["threads"]
    assert (threads.default, threads.max) == (threads_by_default(), hello.device.cores)
    assert "XnnpackBackend" in hello.runtimes["executorch"].backends


@pytest.mark.parametrize("greeted", [True, False], ids=["greeted", "stranger"])
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case["file"])
def test_broken_streams_are_answered_and_closed(agent: Running, case: dict[str, Any], greeted: bool) -> None:
    stream = (GOLDEN / case["file"]).read_bytes()
    code = case["ends"]
    if not greeted and len(stream) > MAX_HELLO_BYTES:
        code = "header_too_large"
    if not greeted and case["file"] == "truncated_payload.bin":
        code = "unauthorized"  # its header is whole, and not a hello
    with agent.raw() if greeted else Raw(agent.socket()) as raw:
        raw.sock.sendall(stream)
        raw.sock.shutdown(socket.SHUT_WR)
        reply = raw.receive()
        assert reply is not None
        assert (reply["id"], reply["error"]["code"]) == (None, code)
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


def test_second_client_is_answered_busy(agent: Running) -> None:
    with agent.raw() as first:
        for token in (agent.token, "wrong"):
            with Raw(agent.socket()) as second:
                reply = second.ask(HELLO | {"token": token})
                assert (reply["id"], reply["error"]["code"]) == (1, "busy")
                assert second.receive() is None
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


def test_failures_keep_the_connection(raw: Raw, exported: Exported) -> None:
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
        reported = {key: header[key] for key in header if key != "order"}
        assert reply.get("error", {"code": "done"})["code"] == code, (reported, reply)
        assert reply["id"] == header["id"]
        if code != "done":
            assert 0 < len(reply["error"]["message"]) <= 4096
            assert "\n" not in reply["error"]["message"]


def test_what_is_not_an_id(raw: Raw) -> None:
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
