"""Client of an agent: one method for every operation of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import hashlib
import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from orchestrator.wire import messages
from orchestrator.wire.errors import AgentError, AgentLostError, FrameError
from orchestrator.wire.frames import CHUNK_BYTES, MAX_PAYLOAD_BYTES, encode_header, read_frame
from orchestrator.wire.messages import (
    MAX_VISITS,
    PROTOCOL_VERSION,
    DeviceState,
    ErrorReply,
    Reply,
    RunningReply,
)


@dataclass(frozen=True)
class ModelFile:
    """A model file.

    Attributes:
        path: The file.
        sha256: Its digest, by which a device identifies it.
        runtime: Its runtime, if it differs from the measurement's.
    """

    path: Path
    sha256: str
    runtime: str = ""


def file_digest(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_chunks(path: Path, size_bytes: int, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    sent_bytes = 0
    with path.open("rb") as file:
        while sent_bytes < size_bytes:
            chunk = file.read(min(CHUNK_BYTES, size_bytes - sent_bytes))
            if not chunk:
                raise InvalidArtifactError(
                    f"the model {path} shrank while it was sent; run the command again", code="damaged_file"
                )
            yield chunk
            sent_bytes += len(chunk)
            if progress is not None:
                progress(sent_bytes, size_bytes)


ReplyT = TypeVar("ReplyT", bound=Reply)


@dataclass(frozen=True)
class Patience:
    """How long an agent may take for a request.

    Attributes:
        silence_s: How long it may be silent, if longer than the channel's own limit.
        heartbeat: Whether it was asked for heartbeats before the reply; each ends a silence.
        limit_s: How long the request may take in all.
        waited: Called at every heartbeat with the seconds so far.
    """

    silence_s: float = 0.0
    heartbeat: bool = False
    limit_s: float = math.inf
    waited: Callable[[float], None] = lambda _: None


HEARTBEAT_S = 10
"""Seconds between two heartbeats of a run or a load."""

SILENCE_LIMIT_S = 180.0
"""Silence after which the agent counts as hung, unless a model is known to take longer. One execution, or another
program that takes all of the processor, may delay many heartbeats."""

RUN_TIMEOUT_S = 3600.0
"""Longest run of an agent without heartbeats, which answers only after the whole schedule; any batch is shorter."""

LOAD_LIMIT_S = 1200.0
"""Longest load. Core ML compiles a model for the neural engine at its first load there, which took 97 and 273 s in
public reports of large ones. Heartbeats can't distinguish a load that hangs from one that compiles."""


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        samples: Nanoseconds (int64) [rounds, calls].
        state_before, state_after: States of the device.
        warmed: How the run was warmed up by time; None if it was not.
        operations: For each handle, the operations of a model loaded with the option `trace`; empty if none
            was.
    """

    samples: np.ndarray
    state_before: DeviceState
    state_after: DeviceState
    warmed: messages.Warmed | None = None
    operations: tuple[tuple[messages.TracedOperation, ...], ...] = ()


class AgentClient:
    """Talks to the agent at the other end of a socket, which it owns and closes.

    Its methods raise AgentError if the agent answers with an error (the connection stays usable), and
    AgentLostError if the connection breaks, the agent takes longer than `timeout_s`, or breaks the protocol;
    `closed` once the connection is gone. `silence_limit_s` is the longest silence of a run with heartbeats.
    """

    def __init__(
        self,
        sock: socket.socket,
        token: str,
        timeout_s: float = 60.0,
        device_name: str = "host",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap a connected socket; `timeout_s` is the longest silence unless a request allows more."""
        self.closed = False
        self._sock, self._stream = sock, sock.makefile("rb")
        self._timeout_s, self._device_name = timeout_s, device_name
        self._next_id = 0
        self._token = token
        self._names: dict[str, str] = {}
        self._loaded: dict[int, str] = {}
        self._hello: messages.HelloReply | None = None
        self._clock_s, self._load_ends_s = clock_s, -math.inf
        self.silence_limit_s = SILENCE_LIMIT_S

    @classmethod
    def greeted(cls, sock: socket.socket, token: str, timeout_s: float, device_name: str) -> Self:
        """Return a client after its handshake; closes `sock` if that fails."""
        client = cls(sock, token, timeout_s, device_name)
        try:
            client.hello()
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Say goodbye unless an error occurred, and close."""
        if kind is None and not self.closed:
            with contextlib.suppress(AgentLostError, AgentError):
                self.bye()
        self.close()

    @property
    def load_left_s(self) -> float:
        """Seconds for which a load that was interrupted by a loss may still keep the agent busy; 0 if none was."""
        return max(0.0, self._load_ends_s - self._clock_s())

    def close(self) -> None:
        """Close the connection without a farewell; the agent then frees all models loaded for it."""
        self.closed = True
        self._stream.close()
        self._sock.close()

    def hello(self) -> messages.HelloReply:
        """Authenticate; must be the first request. Later calls return the same reply; a refusal closes."""
        if self._hello is None:
            fields = {"op": "hello", "protocol": PROTOCOL_VERSION, "token": self._token}
            try:
                self._hello, _ = self._ask("greeting", messages.HelloReply, fields)
            except AgentError:
                self.close()
                raise
        return self._hello

    def ensure(
        self, path: Path, sha256: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> bool:
        """Send a model file unless the agent's store has it; return whether it was sent.

        A known digest saves reading the file; `progress` is called with the bytes sent and in all.

        Raises:
            InvalidArtifactError: The file is unreadable, empty, over 1 GiB, or changes.
        """
        try:
            size_bytes = path.stat().st_size
        except OSError as error:
            raise InvalidArtifactError(
                f"can't read the model {path}: {error.strerror}; export it again", code="unreadable_file"
            ) from None
        if not 0 < size_bytes <= MAX_PAYLOAD_BYTES:
            raise InvalidArtifactError(
                f"the model {path} has {size_bytes} bytes; an agent accepts 1 byte to 1 GiB",
                code="file_too_large",
            )
        digest = sha256 or file_digest(path)
        self._names[digest] = path.name
        have = {"op": "have", "sha256": digest}
        have_reply, _ = self._ask(f"asking for {path.name}", messages.HaveReply, have)
        if have_reply.present:
            return False
        self._ask(
            f"receiving {path.name}",
            messages.PutReply,
            {"op": "put", "sha256": digest},
            (size_bytes, _file_chunks(path, size_bytes, progress)),
        )
        return True

    def load(
        self,
        sha256: str,
        runtime: str,
        options: Mapping[str, bool | int | str] | None = None,
        waited: Callable[[float], None] = lambda _: None,
    ) -> messages.LoadReply:
        """Load a stored model once more; each load is a separate copy in the agent's memory.

        It may take LOAD_LIMIT_S. If the agent sends heartbeats during a load, `waited` is called with the seconds
        so far every HEARTBEAT_S, and the reply has no placement, which `placement` returns.
        """
        name = self._names.get(sha256, sha256[:12])
        fields: dict[str, Any] = {
            "op": "load",
            "sha256": sha256,
            "runtime": runtime,
            "options": dict(options or {}),
        }
        if self._sends_heartbeats("placement"):
            fields["placement"] = False
        loaded = self._patiently(f"loading {name} with {runtime}", messages.LoadReply, fields, waited)
        self._loaded[loaded.handle] = name
        return loaded

    def placement(
        self, handle: int, waited: Callable[[float], None] = lambda _: None
    ) -> messages.Placement | None:
        """Return the compute units of a loaded model's operations, which may take as long as its load.

        None if the runtime does not report them, or the agent has them in the reply to the load.
        """
        if not self._sends_heartbeats("placement"):
            return None
        fields = {"op": "placement", "handle": handle}
        action = f"placing {self._name(handle)}"
        return self._patiently(action, messages.PlacementReply, fields, waited).placement

    def unload(self, handle: int) -> None:
        """Free a loaded model."""
        fields = {"op": "unload", "handle": handle}
        self._ask(f"unloading {self._name(handle)}", messages.UnloadReply, fields)
        self._loaded.pop(handle, None)

    def check(self, handle: int, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the model's outputs for `inputs`, for comparison with PyTorch."""
        payload = messages.pack(inputs)
        specs = [messages.spec_of(array).model_dump() for array in inputs]
        fields = {"op": "check", "handle": handle, "inputs": specs}
        action = f"checking {self._name(handle)}"
        reply, raw = self._ask(action, messages.CheckReply, fields, (len(payload), [payload]))
        try:
            return messages.unpack(reply.outputs, raw)
        except ValueError as error:
            raise self._lost(action, f"it broke the protocol: {error}") from None

    def run(
        self,
        handles: Sequence[int],
        order: Sequence[Sequence[int]],
        warmup: int = 0,
        warmup_ms: int = 0,
        pace_us: int = 0,
        keep_warm: bool | None = None,
    ) -> RunResult:
        """Time a schedule on the device.

        Args:
            handles: Loaded models.
            order: `order[r][c]` is the index into `handles` of call c in round r; rounds are equally long,
                and the schedule has at most 200,000 calls and 1 MiB of JSON.
            warmup: Calls of every model before the first round.
            warmup_ms: Longest time of calling all models in turn until latencies stop falling, if the agent
                can do that.
            pace_us: Microseconds between the starts of two calls, at least.
            keep_warm: Whether the processor is kept busy before calls, if the agent can do that; None: as its
                user has it.

        Raises:
            UsageError: The schedule is too long, or the agent does not support `pace_us`.
        """
        visits = len(order[0]) if order else 0
        if not visits or len(order) * visits > MAX_VISITS:
            raise UsageError(
                f"a schedule of {len(order)} rounds of {visits} calls is refused: it needs 1 to "
                f"{MAX_VISITS} calls in all; split it into several runs",
                code="bad_schedule",
            )
        fields: dict[str, Any] = {
            "op": "run",
            "handles": list(handles),
            "order": [list(map(int, calls)) for calls in order],
            "warmup": warmup,
        }
        action = "timing " + ", ".join(dict.fromkeys(self._name(handle) for handle in handles))
        known, heartbeat = self._hello, False
        if known is not None:
            heartbeat = known.heartbeat
            if heartbeat:
                fields["heartbeat_s"] = HEARTBEAT_S
            if warmup_ms and known.timed_warmup:
                fields["warmup_ms"] = warmup_ms
            if keep_warm is not None and known.keep_warm:
                fields["keep_warm"] = keep_warm
            if pace_us and not known.pace:
                raise UsageError(
                    f"{known.agent.name} is too old for --pace; install its current version",
                    code="unsupported_option",
                )
            if pace_us:
                fields["pace_us"] = pace_us
        patience = Patience(self.silence_limit_s if heartbeat else RUN_TIMEOUT_S, heartbeat)
        reply, raw = self._ask(action, messages.RunReply, fields, patience=patience)
        if (reply.rounds, reply.visits) != (len(order), visits) or len(raw) != 8 * len(order) * visits:
            raise self._lost(
                action, f"it broke the protocol: {len(raw)} bytes for {len(order)} x {visits} samples"
            )
        samples = np.frombuffer(raw, dtype=">u8").astype(np.int64).reshape(len(order), visits)
        operations = tuple(tuple(traced) for traced in reply.operations)
        return RunResult(samples, reply.state_before, reply.state_after, reply.warmed, operations)

    def state(self) -> DeviceState:
        """Return the device's state now."""
        reply, _ = self._ask("reading the device's state", messages.StateReply, {"op": "state"})
        return reply.state

    def bye(self) -> None:
        """End the connection in agreement."""
        self._ask("saying goodbye", messages.ByeReply, {"op": "bye"})
        self.close()

    def _sends_heartbeats(self, op: str) -> bool:
        return self._hello is not None and op in self._hello.heartbeat_ops

    def _patiently(
        self,
        action: str,
        reply_type: type[ReplyT],
        fields: dict[str, Any],
        waited: Callable[[float], None],
    ) -> ReplyT:
        """Send a request that may take LOAD_LIMIT_S; silently only if the agent sends no heartbeats."""
        heartbeat = self._sends_heartbeats(fields["op"])
        if heartbeat:
            fields["heartbeat_s"] = HEARTBEAT_S
        silence_s = SILENCE_LIMIT_S if heartbeat else LOAD_LIMIT_S
        patience = Patience(silence_s, heartbeat, LOAD_LIMIT_S, waited)
        self._load_ends_s = self._clock_s() + LOAD_LIMIT_S
        try:
            reply, _ = self._ask(action, reply_type, fields, patience=patience)
        except AgentError:
            self._load_ends_s = -math.inf
            raise
        self._load_ends_s = -math.inf
        return reply

    def _name(self, handle: int) -> str:
        return self._loaded.get(handle, f"handle {handle}")

    def _ask(
        self,
        action: str,
        reply_type: type[ReplyT],
        fields: dict[str, Any],
        payload: tuple[int, Iterable[bytes]] = (0, ()),
        patience: Patience | None = None,
    ) -> tuple[ReplyT, bytes]:
        """Send a request and return the reply and its payload; `payload` is a size in bytes and its pieces.

        Raises:
            UsageError: The request exceeds the protocol's limits; the connection stays usable.
            InvalidArtifactError: The payload could not be read completely; the connection is closed.
        """
        if self.closed:
            raise AgentLostError(
                f"no connection to the agent on {self._device_name} for {action}: "
                "it was closed before; connect again",
                code="connection_closed",
            )
        self._next_id += 1
        patience = patience or Patience()
        executions: int | None = None
        try:
            frame = encode_header({"id": self._next_id, **fields}, payload[0])
        except FrameError as error:
            raise UsageError(
                f"{action} is refused: {error}; request less at once", code="too_large"
            ) from None
        start_s = self._clock_s()
        try:
            self._sock.settimeout(max(self._timeout_s, patience.silence_s))
            self._send(frame, payload[1])
            header, raw = self._receive(action)
            while patience.heartbeat and "running" in header:
                executions = self._parse(action, RunningReply, header).running
                if (elapsed_s := self._clock_s() - start_s) > patience.limit_s:
                    raise self._lost(action, f"it was not done within {patience.limit_s:.0f} s")
                patience.waited(elapsed_s)
                header, raw = self._receive(action)
        except TimeoutError:
            after = f" after {executions:,} executions" if executions else ""
            missing = "answer" if executions is None else f"heartbeat{after}"
            raise self._lost(action, f"no {missing} within {self._sock.gettimeout():.0f} s") from None
        except FrameError as error:
            raise self._lost(action, str(error)) from None
        except OSError as error:
            raise self._lost(action, error.strerror or str(error)) from None
        except InvalidArtifactError:
            self.close()
            raise
        return self._parse(action, reply_type, header), raw

    def _lost(self, action: str, reason: str) -> AgentLostError:
        """Close the connection and return the error that says so."""
        self.close()
        return AgentLostError(
            f"the agent on {self._device_name} was lost while {action}: {reason}; "
            "measurements so far are kept, run the command again to resume",
            code="agent_lost",
        )

    def _send(self, frame: bytes, payload: Iterable[bytes]) -> None:
        """Send the request; a peer that refused it and closed may have left its reason to be read."""
        try:
            self._sock.sendall(frame)
            for chunk in payload:
                self._sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _receive(self, action: str) -> tuple[dict[str, Any], bytes]:
        answer = read_frame(self._stream)
        if answer is None:
            raise self._lost(action, "it closed the connection")
        header, payload = answer
        return header, payload.read()

    def _parse(self, action: str, reply_type: type[ReplyT], header: dict[str, Any]) -> ReplyT:
        try:
            if "error" in header:
                failure = ErrorReply.model_validate(header).error
                raise AgentError(failure.code, f"{self._device_name}, {action}: {failure.message}")
            reply = reply_type.model_validate(header)
        except ValidationError as error:
            raise self._lost(action, f"it broke the protocol: {first_problem(error)}") from None
        if reply.id != self._next_id:
            raise self._lost(action, f"it answered request {reply.id} instead of {self._next_id}")
        return reply
