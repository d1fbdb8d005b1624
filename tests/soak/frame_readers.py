"""Readers of frames from the wire: an agent's requests, and replies to a client."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from orchestrator.wire.client import AgentClient
from orchestrator.wire.frames import decode_header, encode_header, read_frame
from orchestrator.wire.messages import REPLIES, REQUESTS
from tests.soak.mutations import mutate_bytes, mutate_json
from tests.soak.reader import SHA, STATE, Reader


def split_frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers and payloads of a stream; the last payload may be cut off."""
    frames = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "big")
        raw, rest = data[4 : 4 + size], data[4 + size :]
        try:
            payload = max(0, int(json.loads(raw).get("payload", 0)))
        except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
            payload = 0
        frames.append((raw, rest[:payload]))
        data = rest[payload:]
    return frames


def mutate_frames(data: bytes, rng: random.Random) -> bytes:
    """Return a stream with another header in one of its frames, whose length is right."""
    frames = split_frames(data)
    if not frames:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(frames))
    raw, payload = frames[at]
    frames[at] = mutate_json(raw, rng), payload
    if rng.random() < 0.1:
        frames.insert(rng.randrange(len(frames)), rng.choice(frames))
    return b"".join(len(raw).to_bytes(4, "big") + raw + payload for raw, payload in frames)


REQUEST_HEADERS: tuple[tuple[dict[str, Any], bytes], ...] = (
    ({"id": 1, "op": "hello", "protocol": 1, "token": "a token"}, b""),
    ({"id": 2, "op": "have", "sha256": SHA}, b""),
    ({"id": 3, "op": "put", "sha256": hashlib.sha256(b"a model").hexdigest()}, b"a model"),
    ({"id": 4, "op": "load", "sha256": SHA, "runtime": "executorch", "options": {"threads": 2}}, b""),
    ({"id": 5, "op": "placement", "handle": 1, "heartbeat_s": 10}, b""),
    ({"id": 6, "op": "check", "handle": 1, "inputs": [{"dtype": "float32", "shape": [1, 2]}]}, bytes(8)),
    ({"id": 7, "op": "run", "handles": [1, 2], "order": [[0, 1], [1, 0]], "warmup": 1, "pace_us": 0}, b""),
    ({"id": 8, "op": "unload", "handle": 1}, b""),
    ({"id": 9, "op": "state"}, b""),
)  # fmt: skip
REPLY_HEADERS: tuple[tuple[dict[str, Any], bytes], ...] = (
    (
        {
            "id": 1, "protocol": 1, "heartbeat": True, "timed_warmup": True, "heartbeat_ops": ["load", "placement"],
            "pace": True, "keep_warm": True, "agent": {"name": "blocktime", "version": "1"},
            "device": {"model": "a", "os": "b", "os_build": None, "soc": None, "cores": 8, "memory_bytes": 1 << 33},
            "runtimes": {
                "executorch": {
                    "version": "1", "backends": ["XnnpackBackend"],
                    "options": {"threads": {"type": "int", "default": 1, "min": 1, "max": 8}},
                }
            },
        },
        b"",
    ),
    ({"id": 2, "present": False}, b""),
    ({"id": 3, "bytes": 7}, b""),
    (
        {
            "id": 4, "handle": 1, "load_ns": 5, "options": {"threads": 1}, "delegates": None, "placement": None,
            "inputs": [{"dtype": "float32", "shape": [1, 2]}], "outputs": [{"dtype": "float32", "shape": [1]}],
        },
        b"",
    ),
    (
        {
            "id": 5,
            "placement": {
                "cpu": 1, "gpu": 0, "neural_engine": 0,
                "operations": [{"name": "a", "type": "conv", "unit": "cpu", "cost": 0.5}],
            },
        },
        b"",
    ),
    ({"id": 6, "outputs": [{"dtype": "float32", "shape": [1]}]}, bytes(4)),
    ({"id": 7, "running": 3}, b""),
    (
        {
            "id": 7, "rounds": 2, "visits": 2, "state_before": STATE, "state_after": STATE,
            "warmed": {"ns": 5, "rounds": 2, "steady": True},
        },
        b"".join(number.to_bytes(8, "big") for number in (1000, 2000, 3000, 4000)),
    ),
    ({"id": 8, "state": STATE}, b""),
    ({"id": 9}, b""),
)  # fmt: skip
"""What an agent answers to the conversation of `ClientReader`."""


def stream_of(frames: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """Return frames as bytes."""
    return b"".join(encode_header(header, len(payload)) + payload for header, payload in frames)


class FrameReader(Reader):
    """Frames and the schemas of requests and replies; what is read is written and read again."""

    def make(self) -> None:
        """Make a stream of each frame, and one of all."""
        frames = [*REQUEST_HEADERS, *REPLY_HEADERS]
        self.corpus = [b"\0" + stream_of(part) for part in (frames, *([frame] for frame in frames))]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a stream with another header."""
        del file
        return mutate_frames(content, rng)

    def read(self, data: bytes) -> str:
        """Read all frames."""
        stream = io.BytesIO(data[1:])
        while (frame := read_frame(stream)) is not None:
            header, payload = frame
            content = payload.read()
            op = header.get("op")
            kinds = [REQUESTS[op]] if isinstance(op, str) and op in REQUESTS else [*REPLIES.values()]
            for kind in kinds:
                with contextlib.suppress(ValidationError):
                    kind.model_validate(header)
            bare = {name: value for name, value in header.items() if name != "payload"}
            written = bare | ({"payload": len(content)} if content else {})
            if decode_header(encode_header(bare, len(content))[4:]) != written:
                return "a header is not the same when it is written again"
        return ""


class _Socket:
    """The client's end of a connection whose other end has sent some bytes and closed."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return io.BytesIO(self._received)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: 60.0


class ClientReader(Reader):
    """The client's conversation with an agent that answers anything."""

    first_alone_is_read = True

    def make(self) -> None:
        """Make the replies to one conversation, and an error in place of each."""
        self.model = self.folder / "model.pte"
        self.model.write_bytes(b"a model")
        self.corpus = [b"\0" + stream_of(REPLY_HEADERS)]
        for at, (header, _) in enumerate(REPLY_HEADERS):
            error = {"id": header["id"], "error": {"code": "run_failed", "message": "no"}}
            self.corpus.append(
                b"\0" + stream_of([*REPLY_HEADERS[:at], (error, b""), *REPLY_HEADERS[at + 1 :]])
            )

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return replies with another header."""
        del file
        return mutate_frames(content, rng)

    def read(self, data: bytes) -> str:
        """Greet, send a model, load it, place it, check it, time it, ask for the state and leave."""
        client = AgentClient(_Socket(data[1:]), "token", clock_s=lambda: 0.0)  # type: ignore[arg-type]
        client.hello()
        client.ensure(self.model)
        loaded = client.load(hashlib.sha256(b"a model").hexdigest(), "executorch")
        client.placement(loaded.handle)
        outputs = client.check(loaded.handle, [np.zeros((1, 2), np.float32)])
        result = client.run([loaded.handle, loaded.handle], [[0, 1], [1, 0]], warmup_ms=5)
        client.state()
        client.bye()
        if result.samples.shape != (2, 2) or any(array.dtype.hasobject for array in outputs):
            return "samples or outputs of another shape"
        return ""
