"""Frames: u32 big-endian header length, header (UTF-8 JSON object), then `header["payload"]` bytes.

Every size is bounded before anything of that size is read, so that garbage costs neither memory nor time.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Protocol

from orchestrator.wire.errors import FrameError

LINGER_S = 1.0
LINGER_BYTES = 4 << 20
"""Time and bytes that are read after the last answer, so that the answer arrives."""


class SocketSource:
    """Reads exactly the requested bytes from a socket, without reading ahead, so that readiness can be polled."""

    def __init__(self, sock: socket.socket) -> None:
        """Read from `sock`, which the caller closes."""
        self._sock = sock

    def read(self, size_bytes: int, /) -> bytes:
        """Wait until `size_bytes` have arrived or the peer has closed, and return what has arrived."""
        buffer = bytearray(size_bytes)
        view, got = memoryview(buffer), 0
        while got < size_bytes:
            count = self._sock.recv_into(view[got:])
            if not count:
                break
            got += count
        return bytes(view[:got])


def close_after_answer(sock: socket.socket) -> None:
    """Close after a final answer; unread input is read first, for a bounded time and size.

    Closing with input unread makes the kernel reset the connection, and the peer may lose the answer.
    """
    deadline_s = time.monotonic() + LINGER_S
    left_bytes = LINGER_BYTES
    with contextlib.suppress(OSError), sock:
        sock.shutdown(socket.SHUT_WR)
        while left_bytes > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            count = len(sock.recv(1 << 16))
            if not count:
                return
            left_bytes -= count


PREFIX_BYTES = 4
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 30
MAX_DEPTH = 32
CHUNK_BYTES = 1 << 18


class ByteSource(Protocol):
    """Source of frames: a buffered reader, or a socket behind SocketSource."""

    def read(self, size_bytes: int, /) -> bytes:
        """Wait until `size_bytes` have arrived or the stream has ended, and return what has arrived."""


def encode_header(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """Return the length prefix and header of a frame, whose payload the caller sends next.

    Raises:
        FrameError: A limit of the protocol would be exceeded.
    """
    if not 0 <= payload_bytes <= MAX_PAYLOAD_BYTES:
        raise FrameError(
            "payload_too_large", f"a payload of {payload_bytes} bytes is over the limit of 1 GiB"
        )
    fields = {**header, "payload": payload_bytes} if payload_bytes else dict(header)
    raw = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(raw) > MAX_HEADER_BYTES:
        raise FrameError("header_too_large", f"a header of {len(raw)} bytes is over the limit of 1 MiB")
    return struct.pack(">I", len(raw)) + raw


def decode_header(raw: bytes) -> dict[str, Any]:
    """Return a header.

    Raises:
        FrameError: `raw` is not a JSON object, or its `payload` is not an integer within limits.
    """
    try:
        header = json.loads(
            raw.decode("utf-8", errors="strict"),
            object_pairs_hook=_unique_object,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except UnicodeDecodeError as error:
        raise FrameError("bad_header", f"the header is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise FrameError("bad_header", f"the header nests deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise FrameError("bad_header", f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FrameError("bad_header", "the header is not a JSON object")
    if b"\\ud" in raw.lower() and _has_lone_surrogate(header):
        raise FrameError("bad_header", "a string of the header has half a surrogate pair")
    if _deeper_than(header, MAX_DEPTH):
        raise FrameError("bad_header", f"the header nests deeper than {MAX_DEPTH} levels")
    payload_bytes = header.get("payload", 0)
    if type(payload_bytes) is not int or payload_bytes < 0:
        raise FrameError("bad_header", "payload must be a non-negative integer")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise FrameError(
            "payload_too_large", f"a payload of {payload_bytes} bytes is over the limit of 1 GiB"
        )
    return header


class Payload:
    """Payload bytes that follow a header on a stream; each is read once, in order."""

    def __init__(self, stream: ByteSource, size_bytes: int) -> None:
        """Read `size_bytes` from `stream`."""
        self._stream = stream
        self.size_bytes = size_bytes
        self.left_bytes = size_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield the rest in pieces of at most 256 KiB; raises FrameError `truncated` if the stream ends early."""
        while self.left_bytes:
            chunk = _read_exactly(self._stream, min(self.left_bytes, CHUNK_BYTES), "payload")
            self.left_bytes -= len(chunk)
            yield chunk

    def read(self) -> bytes:
        """Return the rest in memory; memory grows only with what has arrived."""
        return b"".join(self.chunks())

    def drain(self) -> None:
        """Read and discard the rest, so that the next frame can be read."""
        for _ in self.chunks():
            pass


def read_header_length(prefix: bytes | bytearray) -> int:
    """Return the length in bytes that the four-byte `prefix` announces; raises FrameError over the limit."""
    (length_bytes,) = struct.unpack(">I", prefix)
    if length_bytes > MAX_HEADER_BYTES:
        raise FrameError("header_too_large", f"a header of {length_bytes} bytes is over the limit of 1 MiB")
    return int(length_bytes)


def read_frame(stream: ByteSource) -> tuple[dict[str, Any], Payload] | None:
    """Return the next frame's header and its unread payload; None if the stream ended between frames.

    Raises:
        FrameError: The stream ended inside the frame, or the frame is invalid.
    """
    first = stream.read(1)
    if not first:
        return None
    prefix = first + _read_exactly(stream, PREFIX_BYTES - 1, "header length")
    header = decode_header(_read_exactly(stream, read_header_length(prefix), "header"))
    return header, Payload(stream, header.get("payload", 0))


def _read_exactly(stream: ByteSource, size_bytes: int, part: str) -> bytes:
    data = stream.read(size_bytes)
    if len(data) < size_bytes:
        raise FrameError("truncated", f"the stream ended inside the {part} of a frame")
    return data


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _has_lone_surrogate(header: dict[str, Any]) -> bool:
    try:
        json.dumps(header, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    except RecursionError:
        return False
    return False


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            child
            for node in layer
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not layer:
            return False
    return any(isinstance(node, dict | list) for node in layer)
