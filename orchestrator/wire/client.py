"""The client of one agent connection: a method for every op of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from luts.errors import InvalidArtifactError, UsageError
from orchestrator.wire import messages as m
from orchestrator.wire import tensors
from orchestrator.wire.errors import AgentError, AgentLost, FrameError
from orchestrator.wire.frames import CHUNK_BYTES, MAX_PAYLOAD_BYTES, encode_header, read_frame

# A `run` answers only when its whole schedule is done; an hour is beyond any batch that measures one thing.
RUN_TIMEOUT_S = 3600.0

ReplyT = TypeVar("ReplyT", bound=BaseModel)


@dataclass(frozen=True)
class LoadedModel:
    """A model that the agent holds in memory for this connection.

    `delegates` counts the parts that each backend took; `placement` counts operations by compute unit. Either
    is None where the runtime does not tell. `compile_ns` is None where nothing was compiled at this load; `cached`
    says whether the device had loaded this model with these options before.
    """

    handle: int
    name: str
    sha256: str
    load_ns: int
    options: Mapping[str, bool | int | str]
    inputs: tuple[m.TensorSpec, ...]
    outputs: tuple[m.TensorSpec, ...]
    delegates: tuple[m.Delegate, ...] | None
    placement: m.Placement | None
    compile_ns: int | None
    cached: bool | None


@dataclass(frozen=True)
class RunResult:
    """`samples[r, v]`: nanoseconds (int64) of the visit at position v of round r.

    `operations` is, for each handle, what a model loaded with the option `trace` executed; empty where none was.
    """

    samples: np.ndarray
    state_before: m.DeviceState
    state_after: m.DeviceState
    operations: tuple[tuple[m.TracedOperation, ...], ...] = ()


class AgentClient:
    """Speaks to the agent at the other end of `sock`, which it owns and closes.

    Raises AgentError where the agent answers with an error (the connection stays usable) and AgentLost where
    the connection breaks, the agent takes longer than `timeout_s`, or breaks the protocol (it does not).
    """

    def __init__(
        self, sock: socket.socket, token: str, timeout_s: float = 60.0, device_name: str = "host"
    ) -> None:
        self._sock = sock
        self._token = token
        self._timeout_s = timeout_s
        self._device_name = device_name
        self._stream = sock.makefile("rb")
        self._next_id = 0
        self._names: dict[str, str] = {}
        self._loaded: dict[int, str] = {}
        self._hello: m.HelloReply | None = None
        self._closed = False

    @classmethod
    def greeted(cls, sock: socket.socket, token: str, timeout_s: float, device_name: str) -> Self:
        """A client whose hello was answered. Closes `sock` where it is not."""
        client = cls(sock, token, timeout_s, device_name)
        try:
            client.hello()
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed:
            with contextlib.suppress(AgentLost, AgentError):
                self.bye()
        self.close()

    def close(self) -> None:
        """Drops the connection without a word; the agent then frees all it loaded for it."""
        self._closed = True
        self._stream.close()
        self._sock.close()

    def hello(self) -> m.HelloReply:
        """Authenticates; must be first. The answer is kept, and later calls return it; a refusal closes."""
        if self._hello is None:
            fields = {"op": "hello", "protocol": m.PROTOCOL_VERSION, "token": self._token}
            try:
                self._hello, _ = self._ask("greeting", m.HelloReply, fields)
            except AgentError:
                self.close()
                raise
        return self._hello

    def ensure(
        self, path: Path, sha256: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> bool:
        """Makes sure that the agent's store holds the file; True where it had to be sent.

        `sha256` saves reading the file where it is known. `progress(sent_bytes, total_bytes)` is called while
        sending. Raises InvalidArtifactError for a file that can't be read, is empty, over 1 GiB, or changes.
        """
        size_bytes = _model_size(path)
        digest = sha256 or _digest(path)
        self._names[digest] = path.name
        present, _ = self._ask(f"asking for {path.name}", m.HaveReply, {"op": "have", "sha256": digest})
        if present.present:
            return False
        self._ask(
            f"receiving {path.name}",
            m.PutReply,
            {"op": "put", "sha256": digest},
            size_bytes,
            _file_chunks(path, size_bytes, progress),
        )
        return True

    def load(
        self, sha256: str, runtime: str, options: Mapping[str, bool | int | str] | None = None
    ) -> LoadedModel:
        """Loads a stored model afresh; each call is one more copy in the agent's memory."""
        name = self._names.get(sha256, sha256[:12])
        fields = {"op": "load", "sha256": sha256, "runtime": runtime, "options": dict(options or {})}
        reply, _ = self._ask(f"loading {name} with {runtime}", m.LoadReply, fields)
        self._loaded[reply.handle] = name
        return LoadedModel(
            handle=reply.handle,
            name=name,
            sha256=sha256,
            load_ns=reply.load_ns,
            options=dict(reply.options),
            inputs=tuple(reply.inputs),
            outputs=tuple(reply.outputs),
            delegates=None if reply.delegates is None else tuple(reply.delegates),
            placement=reply.placement,
            compile_ns=reply.compile_ns,
            cached=reply.cached,
        )

    def unload(self, handle: int) -> None:
        """Frees a loaded model."""
        self._ask(f"unloading {self._name(handle)}", m.UnloadReply, {"op": "unload", "handle": handle})
        self._loaded.pop(handle, None)

    def check(self, handle: int, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs for `inputs`, for comparison with PyTorch."""
        payload = tensors.pack(inputs)
        fields = {
            "op": "check",
            "handle": handle,
            "inputs": [tensors.spec_of(array).model_dump() for array in inputs],
        }
        action = f"checking {self._name(handle)}"
        reply, raw = self._ask(action, m.CheckReply, fields, len(payload), [payload])
        try:
            return tensors.unpack(reply.outputs, raw)
        except ValueError as error:
            raise self._lost(action, f"it broke the protocol: {error}") from None

    def run(self, handles: Sequence[int], order: Sequence[Sequence[int]], warmup: int = 0) -> RunResult:
        """Times the schedule on the device: `order[r][v]` is an index into `handles`.

        Every model is visited `warmup` times before the first round. Rounds must be equally long, and the
        schedule at most 200,000 visits and 1 MiB of JSON (UsageError).
        """
        visits = len(order[0]) if order else 0
        if not visits or len(order) * visits > m.MAX_VISITS:
            raise UsageError(
                f"a schedule of {len(order)} rounds of {visits} visits is refused: it needs 1 to "
                f"{m.MAX_VISITS} visits in all; split it into several runs"
            )
        fields = {
            "op": "run",
            "handles": list(handles),
            "order": [list(map(int, visited)) for visited in order],
            "warmup": warmup,
        }
        action = "timing " + ", ".join(dict.fromkeys(self._name(handle) for handle in handles))
        reply, raw = self._ask(action, m.RunReply, fields, timeout_s=max(self._timeout_s, RUN_TIMEOUT_S))
        if (reply.rounds, reply.visits) != (len(order), visits) or len(raw) != 8 * len(order) * visits:
            raise self._lost(
                action, f"it broke the protocol: {len(raw)} bytes for {len(order)} x {visits} samples"
            )
        samples = np.frombuffer(raw, dtype=">u8").astype(np.int64).reshape(len(order), visits)
        operations = tuple(tuple(traced) for traced in reply.operations)
        return RunResult(samples, reply.state_before, reply.state_after, operations)

    def state(self) -> m.DeviceState:
        """The device's state now."""
        reply, _ = self._ask("reading the device's state", m.StateReply, {"op": "state"})
        return reply.state

    def bye(self) -> None:
        """Ends the connection in agreement."""
        self._ask("saying goodbye", m.ByeReply, {"op": "bye"})
        self.close()

    def _name(self, handle: int) -> str:
        return self._loaded.get(handle, f"handle {handle}")

    def _ask(
        self,
        action: str,
        reply_type: type[ReplyT],
        fields: dict[str, Any],
        payload_bytes: int = 0,
        payload: Iterable[bytes] = (),
        timeout_s: float | None = None,
    ) -> tuple[ReplyT, bytes]:
        if self._closed:
            raise AgentLost(
                f"no connection to the agent on {self._device_name} for {action}: "
                "it was closed before; connect again"
            )
        self._next_id += 1
        request_id = self._next_id
        try:
            frame = encode_header({"id": request_id, **fields}, payload_bytes)
        except FrameError as error:
            raise UsageError(f"{action} is refused: {error}; ask for less at once") from None
        try:
            self._sock.settimeout(self._timeout_s if timeout_s is None else timeout_s)
            self._send(frame, payload)
            answer = read_frame(self._stream)
            if answer is None:
                raise self._lost(action, "it closed the connection")
            header, reply_payload = answer
            raw = reply_payload.read()
        except TimeoutError:
            raise self._lost(action, f"no answer within {self._sock.gettimeout():.0f} s") from None
        except FrameError as error:
            raise self._lost(action, str(error)) from None
        except OSError as error:
            raise self._lost(action, error.strerror or str(error)) from None
        except InvalidArtifactError:
            self.close()
            raise
        return self._parse(action, reply_type, request_id, header), raw

    def _send(self, frame: bytes, payload: Iterable[bytes]) -> None:
        """Sends the request. A peer that has refused it and closed may have left its reason to be read."""
        try:
            self._sock.sendall(frame)
            for chunk in payload:
                self._sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _parse(
        self, action: str, reply_type: type[ReplyT], request_id: int, header: dict[str, Any]
    ) -> ReplyT:
        try:
            if "error" in header:
                failure = m.ErrorReply.model_validate(header)
                raise AgentError(
                    failure.error.code, f"{self._device_name}, {action}: {failure.error.message}"
                )
            reply = reply_type.model_validate(header)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise self._lost(action, f"it broke the protocol: {where}: {first['msg']}") from None
        if header.get("id") != request_id:
            raise self._lost(action, f"it answered request {header.get('id')} instead of {request_id}")
        return reply

    def _lost(self, action: str, reason: str) -> AgentLost:
        self.close()
        return AgentLost(
            f"the agent on {self._device_name} was lost while {action}: {reason}; "
            "what was measured before is kept, start the command again to go on"
        )


def _model_size(path: Path) -> int:
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InvalidArtifactError(
            f"can't read the model {path}: {error.strerror}; export it again"
        ) from None
    if not 0 < size_bytes <= MAX_PAYLOAD_BYTES:
        raise InvalidArtifactError(f"the model {path} has {size_bytes} bytes; an agent takes 1 byte to 1 GiB")
    return size_bytes


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_chunks(path: Path, size_bytes: int, progress: Callable[[int, int], None] | None) -> Iterable[bytes]:
    sent_bytes = 0
    with path.open("rb") as file:
        while sent_bytes < size_bytes:
            chunk = file.read(min(CHUNK_BYTES, size_bytes - sent_bytes))
            if not chunk:
                raise InvalidArtifactError(
                    f"the model {path} shrank while it was sent; run the command again"
                )
            yield chunk
            sent_bytes += len(chunk)
            if progress is not None:
                progress(sent_bytes, size_bytes)
