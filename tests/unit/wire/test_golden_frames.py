"""The golden frames and schemas that all languages test against: current, and true of this reader."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from orchestrator.wire.errors import FrameError
from orchestrator.wire.frames import read_frame
from orchestrator.wire.messages import REPLIES, REQUESTS, Battery, CpuClock, DeviceState
from tools import make_golden_frames

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "protocol/golden"
MANIFEST: list[dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_bytes())["cases"]
MESSAGES = [case for case in MANIFEST if "schema" in case]


def test_generated_files_are_current() -> None:
    built = make_golden_frames.build()
    found = {p.relative_to(ROOT) for d in ("schemas", "golden") for p in (ROOT / "protocol" / d).iterdir()}
    assert found == set(built)
    for path, content in built.items():
        assert (ROOT / path).read_bytes() == content, (
            f"{path} is stale: run python -m tools.make_golden_frames"
        )


def test_golden_frames_cover_the_state() -> None:
    state = make_golden_frames.STATE
    for value, model in ((state, DeviceState), (state["cpus"][0], CpuClock), (state["battery"], Battery)):
        assert set(value) == set(model.model_fields)


@pytest.mark.parametrize("case", MANIFEST, ids=lambda case: case["file"])
def test_stream_decodes_as_the_manifest_says(case: dict[str, Any]) -> None:
    stream = io.BytesIO((GOLDEN / case["file"]).read_bytes())
    ends = "end"
    frames: list[dict[str, Any]] = []
    try:
        while (frame := read_frame(stream)) is not None:
            header, payload = frame
            frames.append({"header": header, "payload_hex": payload.read().hex()})
    except FrameError as error:
        ends = error.code
    assert ends == case["ends"]
    assert len(frames) == len(case["frames"])
    for found, expected in zip(frames, case["frames"], strict=True):
        assert found["payload_hex"] == expected["payload_hex"]
        if "header" in expected:
            assert found["header"] == expected["header"]
        else:
            assert len(json.dumps(found["header"], separators=(",", ":"))) == expected["header_bytes"]


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["file"])
def test_schema_and_model_agree(case: dict[str, Any]) -> None:
    name, direction, _ = case["schema"].split(".")
    model = (REQUESTS if direction == "request" else REPLIES)[name]
    schema = json.loads((ROOT / "protocol/schemas" / case["schema"]).read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    header = case["frames"][0]["header"]
    assert jsonschema.Draft202012Validator(schema).is_valid(header) == case["valid"]
    assert _accepts(model, header) == case["valid"]


@pytest.mark.parametrize("case", [c for c in MESSAGES if c["valid"]], ids=lambda case: case["file"])
def test_schema_and_model_agree_on_broken_messages(case: dict[str, Any]) -> None:
    """Every field of every valid message is dropped, and replaced by values of other types and ranges."""
    name, direction, _ = case["schema"].split(".")
    model = (REQUESTS if direction == "request" else REPLIES)[name]
    schema = json.loads((ROOT / "protocol/schemas" / case["schema"]).read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    broken = list(_mutations(case["frames"][0]["header"]))
    refused = 0
    for header in broken:
        accepted = _accepts(model, header)
        assert validator.is_valid(header) == accepted, header
        refused += not accepted
    assert refused >= len(broken) // 4


def _accepts(model: Any, header: Any) -> bool:
    try:
        model.model_validate(header)
    except ValidationError:
        return False
    return True


_VALUES = (None, True, -1, 0, 7, 2**53, 0.5, "", "hello", "x" * 300, [], [1], [[0]], {}, {"a": 1})


def _mutations(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            for other in _VALUES:
                yield {**value, key: other}
            for inner in _mutations(value[key]):
                yield {**value, key: inner}
    elif isinstance(value, list):
        for i, item in enumerate(value):
            for other in (*_VALUES, *_mutations(item)):
                yield [*value[:i], other, *value[i + 1 :]]
