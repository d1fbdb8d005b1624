"""Write protocol/schemas/ from the message models, protocol/golden/ from the cases here.

Run it after a change of these models (orchestrator/wire): `python -m tools.make_golden_frames`. A test holds that
both folders are what this writes. `golden_cases` is data: each case is a byte stream and what reading it gives.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.wire.messages import PROTOCOL_VERSION, REPLIES, REQUESTS

ROOT = Path(__file__).resolve().parent.parent

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
STATE: dict[str, Any] = {
    "uptime_ns": 81_234_567_890,
    "load_average_1m": 0.25,
    "cpus": [
        {"cpu": 0, "mhz": 1803.0, "max_mhz": 2404.5, "governor": "schedutil", "hardware_max_mhz": 2914.0}
    ],
    "steal_ms": None,
    "thermal_state": "nominal",
    "thermal_headroom": 0.5,
    "thermal_zones": [{"name": "cpu-0-0", "celsius": 41.5}],
    "throttle_count": None,
    "battery": {
        "percent": 81.0,
        "charging": True,
        "celsius": 29.5,
        "charge_uah": 3_512_000,
        "voltage_mv": 4_123,
    },
    "low_power_mode": False,
    "free_memory_bytes": 2_147_483_648,
    "agent_memory_bytes": 123_456_789,
    "agent_peak_memory_bytes": 234_567_890,
    "qos": None,
    "foreground": True,
    "keep_warm": False,
    "sustained_performance": True,
    "cores": "4-8",
    "caveats": ["debuggable_build"],
}
UNKNOWN_STATE: dict[str, Any] = {
    name: [] if name in ("cpus", "thermal_zones", "caveats") else 5 if name == "uptime_ns" else None
    for name in STATE
}
HELLO = {"id": 1, "op": "hello", "protocol": 1, "token": "not-a-secret"}
TENSOR = {"dtype": "float32", "shape": [1, 2]}


@dataclass(frozen=True)
class Case:
    """A stream; the frames it decodes to; the error it ends with (`end`: it ends cleanly between frames).

    `schema` names the file in protocol/schemas/ that decides whether the only frame's header is `valid`.
    """

    name: str
    stream: bytes
    frames: tuple[tuple[dict[str, Any], bytes], ...] = ()
    ends: str = "end"
    schema: str = ""
    valid: bool = True


def frame(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Return a well-formed frame, written without the code under test."""
    return raw_frame(json.dumps(header, separators=(",", ":")).encode()) + payload


def raw_frame(header: bytes) -> bytes:
    """Return a frame of any header bytes."""
    return struct.pack(">I", len(header)) + header


def message(name: str, header: dict[str, Any], payload: bytes = b"", valid: bool = True) -> Case:
    """Return a case of one message; its schema is the first two words of its name."""
    full = {**header, "payload": len(payload)} if payload else header
    return Case(name, frame(full, payload), ((full, payload),), "end", ".".join(name.split(".")[:2]), valid)


def message_cases() -> list[Case]:
    """Return one valid frame of every message, and requests that each break one rule of a schema."""
    hello = {
        "id": 1,
        "protocol": 1,
        "agent": {"name": "blocktime-android", "version": "0.1.0"},
        "device": {
            "model": "Pixel 8",
            "os": "Android 15",
            "os_build": "AP3A.241005.015",
            "soc": "Google Tensor G3",
            "cores": 9,
            "memory_bytes": 8_000_000_000,
            "simulated": False,
        },
        "runtimes": {
            "executorch": {
                "version": "1.5.1",
                "backends": ["XnnpackBackend"],
                "options": {"threads": {"type": "int", "default": 4, "min": 1, "max": 9, "choices": None}},
            }
        },
    }
    load = {
        "id": 4,
        "handle": 1,
        "load_ns": 4_432_187,
        "options": {"threads": 2},
        "inputs": [TENSOR],
        "outputs": [{"dtype": "int64", "shape": []}],
        "delegates": [{"backend": "XnnpackBackend", "count": 27}],
        "placement": None,
    }
    run = {"id": 7, "rounds": 2, "visits": 2, "state_before": STATE, "state_after": UNKNOWN_STATE}
    run_request = {"id": 7, "op": "run", "handles": [1, 2], "order": [[0, 1], [1, 0]], "warmup": 3}
    load_request = {"id": 4, "op": "load", "sha256": SHA, "runtime": "executorch", "options": {"threads": 2}}
    return [
        message("hello.request", HELLO),
        message("hello.reply", hello),
        message("hello.reply.heartbeat", {**hello, "heartbeat": True}),
        message("hello.reply.timed_warmup", {**hello, "timed_warmup": True}),
        message("hello.reply.heartbeat_ops", {**hello, "heartbeat_ops": ["load", "placement"]}),
        message("hello.reply.pace", {**hello, "pace": True}),
        message("hello.reply.keep_warm", {**hello, "keep_warm": True}),
        message("hello.reply.unknown_field", {**hello, "later": {"than": "this version"}}),
        message("have.request", {"id": 2, "op": "have", "sha256": SHA}),
        message("have.reply", {"id": 2, "present": False}),
        message("put.request", {"id": 3, "op": "put", "sha256": SHA}, b"test"),
        message("put.reply", {"id": 3, "bytes": 4}),
        message("load.request", load_request),
        message("load.request.heartbeat", {**load_request, "placement": False, "heartbeat_s": 10}),
        message("load.request.heartbeat_too_rare", {**load_request, "heartbeat_s": 601}, valid=False),
        message("load.request.placement_null", {**load_request, "placement": None}, valid=False),
        message("load.reply", load),
        message(
            "load.reply.placement",
            {
                **load,
                "delegates": None,
                "placement": {
                    "cpu": 1,
                    "gpu": 0,
                    "neural_engine": 1,
                    "operations": [
                        {"name": "x_1", "type": "ios16.conv", "unit": "neural_engine", "cost": 0.875},
                        {"name": "x_2", "type": "ios16.cast", "unit": "cpu", "cost": None},
                    ],
                },
                "compile_ns": 812_345_678,
                "cached": False,
                "input_buffers": "iosurface",
            },
        ),
        message("placement.request", {"id": 5, "op": "placement", "handle": 1}),
        message("placement.request.heartbeat", {"id": 5, "op": "placement", "handle": 1, "heartbeat_s": 10}),
        message("placement.reply", {"id": 5, "placement": {"cpu": 0, "gpu": 0, "neural_engine": 2}}),
        message("placement.reply.unknown", {"id": 5, "placement": None}),
        message("unload.request", {"id": 5, "op": "unload", "handle": 1}),
        message("unload.reply", {"id": 5}),
        message(
            "check.request",
            {"id": 6, "op": "check", "handle": 1, "inputs": [TENSOR]},
            struct.pack("<2f", 1.5, -2.0),
        ),
        message("check.reply", {"id": 6, "outputs": [TENSOR]}, struct.pack("<2f", 3.0, 0.25)),
        message("run.request", run_request),
        message("run.reply", run, struct.pack(">4Q", 2_222_463, 2_258_931, 2_225_207, 2_267_324)),
        message("run.request.heartbeat", {**run_request, "heartbeat_s": 10}),
        message("run.request.heartbeat_too_rare", {**run_request, "heartbeat_s": 601}, valid=False),
        message("run.request.heartbeat_null", {**run_request, "heartbeat_s": None}, valid=False),
        message("run.request.warmup_ms", {**run_request, "warmup_ms": 2000}),
        message("run.request.pace_us", {**run_request, "pace_us": 33_333}),
        message("run.request.keep_warm", {**run_request, "keep_warm": False}),
        message("run.request.keep_warm_null", {**run_request, "keep_warm": None}, valid=False),
        message("run.request.pace_us_too_slow", {**run_request, "pace_us": 1_000_001}, valid=False),
        message("run.request.warmup_ms_too_long", {**run_request, "warmup_ms": 60_001}, valid=False),
        message(
            "run.reply.warmed",
            {**run, "warmed": {"ns": 151_234_567, "rounds": 34, "steady": True}},
            struct.pack(">4Q", 2_222_463, 2_258_931, 2_225_207, 2_267_324),
        ),
        message("running.reply", {"id": 7, "running": 1024}),
        message("state.request", {"id": 8, "op": "state"}),
        message("state.reply", {"id": 8, "state": STATE}),
        message("bye.request", {"id": 9, "op": "bye"}),
        message("bye.reply", {"id": 9}),
        message("error.reply", {"id": 4, "error": {"code": "bad_model", "message": "no ExecuTorch program"}}),
        message("error.reply.no_id", {"id": None, "error": {"code": "busy", "message": "wait"}}),
        message("hello.request.payload_zero", {**HELLO, "payload": 0}),
        message("hello.request.with_payload", HELLO, b"x", valid=False),
        message("hello.request.unknown_field", {**HELLO, "more": 1}, valid=False),
        message("hello.request.no_token", {"id": 1, "op": "hello", "protocol": 1}, valid=False),
        message("hello.request.negative_id", {**HELLO, "id": -1}, valid=False),
        message("hello.request.id_too_large", {**HELLO, "id": 2**53}, valid=False),
        message("hello.request.boolean_id", {**HELLO, "id": True}, valid=False),
        message("have.request.upper_case", {"id": 2, "op": "have", "sha256": SHA.upper()}, valid=False),
        message("put.request.empty", {"id": 3, "op": "put", "sha256": SHA}, valid=False),
        message("load.request.float_option", {**load_request, "options": {"threads": 1.5}}, valid=False),
        message("run.request.no_rounds", {**run_request, "order": []}, valid=False),
        message("run.request.empty_round", {**run_request, "order": [[]]}, valid=False),
        message("run.request.warmup_too_large", {**run_request, "warmup": 1001}, valid=False),
    ]


def framing_cases() -> list[Case]:
    """Return streams that test the framing only."""
    mib = 1 << 20
    largest = {"id": 1, "op": "x" * (mib - len('{"id":1,"op":""}'))}
    deepest: dict[str, Any] = {}
    for _ in range(31):
        deepest = {"a": deepest}
    deepest_frame = frame(deepest)
    too_deep = raw_frame(b'{"a":' * 32 + b"{}" + b"}" * 32)
    two = frame({"id": 1, "payload": 3}, b"abc") + frame({"id": 2})
    return [
        Case("empty", b""),
        Case("two_frames", two, (({"id": 1, "payload": 3}, b"abc"), ({"id": 2}, b""))),
        Case("unicode", raw_frame('{"é":"\\u20ac𝄞"}'.encode()), (({"é": "€𝄞"}, b""),)),
        Case("spaces", raw_frame(b' {\n"a" : [ ] }\t'), (({"a": []}, b""),)),
        Case("depth_32", deepest_frame, ((deepest, b""),)),
        Case("header_1_mib", frame(largest), ((largest, b""),)),
        Case("truncated_length", b"\x00\x00", ends="truncated"),
        Case("truncated_header", raw_frame(b'{"id":1}')[:-3], ends="truncated"),
        Case("truncated_payload", frame({"payload": 4}, b"abc"), ends="truncated"),
        Case("truncated_second", two[:-1], (({"id": 1, "payload": 3}, b"abc"),), "truncated"),
        Case("header_over_1_mib", struct.pack(">I", mib + 1) + b"{", ends="header_too_large"),
        Case("header_4_gib", b"\xff\xff\xff\xff", ends="header_too_large"),
        Case("http", b"GET / HTTP/1.1\r\n\r\n", ends="header_too_large"),
        Case("payload_over_1_gib", frame({"payload": (1 << 30) + 1}), ends="payload_too_large"),
        Case("payload_2_to_64", frame({"payload": 1 << 64}), ends="payload_too_large"),
        Case("payload_negative", frame({"payload": -1}), ends="bad_header"),
        Case("payload_fraction", frame({"payload": 1.5}), ends="bad_header"),
        Case("payload_string", frame({"payload": "1"}), ends="bad_header"),
        Case("payload_boolean", frame({"payload": True}), ends="bad_header"),
        Case("payload_null", frame({"payload": None}), ends="bad_header"),
        Case("header_empty", raw_frame(b""), ends="bad_header"),
        Case("header_array", raw_frame(b"[1]"), ends="bad_header"),
        Case("header_null", raw_frame(b"null"), ends="bad_header"),
        Case("header_not_json", raw_frame(b"{id:1}"), ends="bad_header"),
        Case("header_trailing", raw_frame(b'{"id":1}{}'), ends="bad_header"),
        Case("header_bom", raw_frame(b"\xef\xbb\xbf{}"), ends="bad_header"),
        Case("header_bad_utf8", raw_frame(b'{"a":"\xff"}'), ends="bad_header"),
        Case("header_lone_surrogate", raw_frame(b'{"a":"\\ud800"}'), ends="bad_header"),
        Case("header_duplicate_key", raw_frame(b'{"id":1,"id":2}'), ends="bad_header"),
        Case("header_duplicate_key_inside", raw_frame(b'{"a":[{"b":1,"b":1}]}'), ends="bad_header"),
        Case("header_nan", raw_frame(b'{"a":NaN}'), ends="bad_header"),
        Case("header_infinite", raw_frame(b'{"a":1e999}'), ends="bad_header"),
        Case("header_depth_33", too_deep, ends="bad_header"),
        Case("header_depth_100000", raw_frame(b'{"a":' + b"[" * 100_000), ends="bad_header"),
    ]


def golden_cases() -> list[Case]:
    """Return all cases in the order of the manifest."""
    return [*message_cases(), *framing_cases()]


_MS = 1_000_000
_NEVER = 60_000


@dataclass(frozen=True)
class RampCase:
    """Warm-up by time: rounds as (count, milliseconds of each model); it ends with the last one, not earlier.

    Expected values were worked out by hand.
    """

    name: str
    rounds: tuple[tuple[int, tuple[float, ...]], ...]
    ms: float
    steady: bool = True
    bound_ms: int = _NEVER


RAMP_CASES = (
    RampCase("a clock that is up takes three windows", ((15, (10,)),), 150),
    RampCase("a clock that climbs", ((1, (100,)), (1, (80,)), (1, (70,)), (1, (69.4,)), (1, (69,))), 388.4),
    RampCase("a fall begins the count anew", ((2, (60,)), (3, (59,))), 297),
    RampCase("a hundredth is not a fall", ((1, (100,)), (2, (99,))), 298),
    RampCase("a device that slows down is warm", ((1, (60,)), (1, (70,)), (1, (80,))), 210),
    RampCase(
        "time is up", ((1, (100,)), (1, (90,)), (1, (80,)), (1, (70,))), 340, steady=False, bound_ms=300
    ),
    RampCase("time is up and it is steady", ((3, (100,)),), 300, bound_ms=300),
    RampCase("time is up within a window", ((12, (10,)),), 120, steady=False, bound_ms=120),
    RampCase("one round takes all the time", ((1, (600, 900)),), 1500, steady=False, bound_ms=1000),
    RampCase("one model falls as another rises", ((1, (30, 20)), (1, (20, 30)), (1, (30, 20))), 150),
    RampCase("a preempted visit does not count", ((7, (10,)), (1, (200,)), (5, (10,))), 320),
    RampCase("the lower of two medians", ((1, (20,)), (1, (40,)), (1, (20,)), (1, (30,)), (2, (25,))), 160),
    RampCase("a window's last 15 rounds", ((40, (1.1,)), (6, (1,)), (38, (1.1,)), (109, (1,))), 200.8),
)


def ramps() -> dict[str, Any]:
    """Return the content of protocol/golden/ramps.json, in nanoseconds."""
    return {
        "cases": [
            {
                "name": case.name,
                "bound_ns": case.bound_ms * _MS,
                "rounds": [[count, [round(ms * _MS) for ms in models]] for count, models in case.rounds],
                "ns": round(case.ms * _MS),
                "steady": case.steady,
            }
            for case in RAMP_CASES
        ]
    }


def manifest_entry(case: Case) -> dict[str, Any]:
    """Return the manifest's entry of a case; a header over 4 KiB is given by its `header_bytes` only."""
    frames = []
    for header, payload in case.frames:
        size = len(json.dumps(header, separators=(",", ":")).encode())
        content = {"header": header} if size <= 4096 else {"header_bytes": size}
        frames.append({**content, "payload_hex": payload.hex()})
    entry: dict[str, Any] = {"file": f"{case.name}.bin", "frames": frames, "ends": case.ends}
    if case.schema:
        entry |= {"schema": f"{case.schema}.json", "valid": case.valid}
    return entry


def schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a message."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="validation"),
        "title": title,
    }


def build() -> dict[Path, bytes]:
    """Return the content of every generated file, by path relative to the repository."""
    files: dict[Path, bytes] = {}
    schemas: dict[str, type[BaseModel]] = {f"{op}.request": model for op, model in REQUESTS.items()}
    schemas |= {f"{name}.reply": model for name, model in REPLIES.items()}
    for name, model in schemas.items():
        files[Path(f"protocol/schemas/{name}.json")] = dump(schema(model, name))
    for case in golden_cases():
        files[Path(f"protocol/golden/{case.name}.bin")] = case.stream
    cases = [manifest_entry(case) for case in golden_cases()]
    files[Path("protocol/golden/manifest.json")] = dump({"protocol": PROTOCOL_VERSION, "cases": cases})
    files[Path("protocol/golden/ramps.json")] = dump(ramps())
    return files


def dump(value: Any) -> bytes:
    """Return JSON that people and diffs can read."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def main() -> None:
    """Write all files and remove those that are no longer generated."""
    files = build()
    for folder in (ROOT / "protocol/schemas", ROOT / "protocol/golden"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.relative_to(ROOT) not in files:
                path.unlink()
    for path, content in files.items():
        (ROOT / path).write_bytes(content)


if __name__ == "__main__":
    main()
