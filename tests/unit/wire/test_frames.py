"""Frames: what is written is read back, and no bytes can make the reader do anything but answer or refuse."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.wire.errors import FrameError
from orchestrator.wire.frames import MAX_PAYLOAD_BYTES, encode_header, read_frame
from tests.support.errors import raises

CODES = {"end", "header_too_large", "payload_too_large", "bad_header", "truncated"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=6
)
HEADERS = st.dictionaries(TEXT.filter(lambda key: key != "payload"), VALUES, max_size=4)


def ending(data: bytes) -> str:
    """`end`, or the code of the FrameError that reading ends with."""
    try:
        read_all(data)
    except FrameError as error:
        return error.code
    return "end"


def read_all(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    stream, frames = io.BytesIO(data), []
    while (frame := read_frame(stream)) is not None:
        frames.append((frame[0], frame[1].read()))
    return frames


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=4))
def test_round_trip(frames: list[tuple[dict[str, Any], bytes]]) -> None:
    data = b"".join(encode_header(header, len(payload)) + payload for header, payload in frames)
    expected = [({**h, "payload": len(p)} if p else h, p) for h, p in frames]
    assert read_all(data) == expected


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_frame_error(data: bytes) -> None:
    assert ending(data) in CODES


@settings(derandomize=True, max_examples=150, deadline=None)
@given(HEADERS, st.binary(max_size=40), st.data())
def test_damaged_frames_are_frames_or_a_frame_error(
    header: dict[str, Any], payload: bytes, data: Any
) -> None:
    stream = bytearray(encode_header(header, len(payload)) + payload)
    position = data.draw(st.integers(0, len(stream) - 1))
    stream[position] ^= 1 << data.draw(st.integers(0, 7))
    assert ending(bytes(stream)) in CODES


@settings(derandomize=True, max_examples=100, deadline=None)
@given(HEADERS, st.binary(min_size=1, max_size=40), st.data())
def test_every_cut_is_truncated(header: dict[str, Any], payload: bytes, data: Any) -> None:
    stream = encode_header(header, len(payload)) + payload
    with pytest.raises(FrameError) as cut:
        read_all(stream[: data.draw(st.integers(1, len(stream) - 1))])
    assert cut.value.code == "truncated"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=100))
def test_any_text_as_header(text: str) -> None:
    raw = text.encode("utf-8", errors="surrogatepass")
    data = struct.pack(">I", len(raw)) + raw
    if ending(data) == "end":
        ((header, _),) = read_all(data)
        assert header == json.loads(text)


class Unread(io.BytesIO):
    """Fails a test that asks for more than a little at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= 1 << 20
        return super().read(size)


def test_announced_sizes_cost_nothing_before_they_arrive() -> None:
    header = encode_header({"id": 1}, MAX_PAYLOAD_BYTES)
    frame = read_frame(Unread(header + b"short"))
    assert frame is not None
    with pytest.raises(FrameError) as cut:
        frame[1].drain()
    assert cut.value.code == "truncated"


@pytest.mark.parametrize("payload_bytes", [-1, MAX_PAYLOAD_BYTES + 1])
def test_payload_over_the_limit_is_not_written(payload_bytes: int) -> None:
    with raises("payload_too_large"):
        encode_header({}, payload_bytes)


def test_header_over_the_limit_is_not_written() -> None:
    with raises("header_too_large"):
        encode_header({"a": "x" * (1 << 20)})
