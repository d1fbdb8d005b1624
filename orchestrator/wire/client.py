"""The client of one agent connection: a method for every op of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import hashlib
import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
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
    """A file, the digest by which a device knows it, and its runtime where that is not the measurement's."""

    path: Path
    sha256: str
    runtime: str = ""


def file_size(path: Path) -> int:
    """Bytes of a model; InvalidArtifactError where it can't be read, or no agent takes so many."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InvalidArtifactError(
            f"can't read the model {path}: {error.strerror}; export it again"
        ) from None
    if not 0 < size_bytes <= MAX_PAYLOAD_BYTES:
        raise InvalidArtifactError(f"the model {path} has {size_bytes} bytes; an agent takes 1 byte to 1 GiB")
    return size_bytes


def file_digest(path: Path) -> str:
    """Its sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_chunks(path: Path, size_bytes: int, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """The file's bytes; `progress` is called after each piece with the bytes so far and in all.

    Raises:
        InvalidArtifactError: the file ends before `size_bytes`.
    """
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


ReplyT = TypeVar("ReplyT", bound=Reply)


class Channel:
    """Asks the agent at the other end of `sock`, which it owns; `closed` once the connection is gone."""

    def __init__(
        self,
        sock: socket.socket,
        timeout_s: float,
        device_name: str,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.closed = False
        self._sock, self._stream = sock, sock.makefile("rb")
        self._timeout_s, self._clock_s = timeout_s, clock_s
        self._device_name = device_name
        self._next_id = 0

    def close(self) -> None:
        """Drops the connection without a word."""
        self.closed = True
        self._stream.close()
        self._sock.close()

    def ask(
        self,
        action: str,
        reply_type: type[ReplyT],
        fields: dict[str, Any],
        payload_bytes: int = 0,
        payload: Iterable[bytes] = (),
        at_least_s: float = 0.0,
        beats: bool = False,
        limit_s: float = math.inf,
        waited: Callable[[float], None] = lambda _: None,
    ) -> tuple[ReplyT, bytes]:
        """The reply to a request, and its payload.

        Args:
            action: What is asked for, in errors.
            reply_type: What it is answered with.
            fields: Of the request, `op` among them.
            payload_bytes: Size of the payload in all.
            payload: Its pieces.
            at_least_s: How long the agent may be silent, however short this channel's time limit.
            beats: Whether it was asked for signs of life before the reply, each of which ends a silence.
            limit_s: How long all may take, however many signs there are.
            waited: Told at every sign how many seconds it has taken so far.

        Raises:
            UsageError: the request is beyond the protocol's limits; the connection stays usable.
            AgentError: the agent refused it; the connection stays usable.
            AgentLostError: the connection broke or was closed, or the agent broke the protocol.
            InvalidArtifactError: the payload could not be read to its end; the connection is closed.
        """
        if self.closed:
            raise AgentLostError(
                f"no connection to the agent on {self._device_name} for {action}: "
                "it was closed before; connect again"
            )
        self._next_id += 1
        executions: int | None = None
        try:
            frame = encode_header({"id": self._next_id, **fields}, payload_bytes)
        except FrameError as error:
            raise UsageError(f"{action} is refused: {error}; ask for less at once") from None
        start_s = self._clock_s()
        try:
            self._sock.settimeout(max(self._timeout_s, at_least_s))
            self._send(frame, payload)
            header, raw = self._receive(action)
            while beats and "running" in header:
                executions = self._parse(action, RunningReply, header).running
                if (elapsed_s := self._clock_s() - start_s) > limit_s:
                    raise self.lost(action, f"it was not done within {limit_s:.0f} s")
                waited(elapsed_s)
                header, raw = self._receive(action)
        except TimeoutError:
            told = f" after {executions:,} executions" if executions else ""
            what = "answer" if executions is None else f"sign of life{told}"
            raise self.lost(action, f"no {what} within {self._sock.gettimeout():.0f} s") from None
        except FrameError as error:
            raise self.lost(action, str(error)) from None
        except OSError as error:
            raise self.lost(action, error.strerror or str(error)) from None
        except InvalidArtifactError:
            self.close()
            raise
        return self._parse(action, reply_type, header), raw

    def lost(self, action: str, reason: str) -> AgentLostError:
        """Closes; the error that says so."""
        self.close()
        return AgentLostError(
            f"the agent on {self._device_name} was lost while {action}: {reason}; "
            "what was measured before is kept, start the command again to go on"
        )

    def _send(self, frame: bytes, payload: Iterable[bytes]) -> None:
        """Sends the request. A peer that has refused it and closed may have left its reason to be read."""
        try:
            self._sock.sendall(frame)
            for chunk in payload:
                self._sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _receive(self, action: str) -> tuple[dict[str, Any], bytes]:
        answer = read_frame(self._stream)
        if answer is None:
            raise self.lost(action, "it closed the connection")
        header, payload = answer
        return header, payload.read()

    def _parse(self, action: str, reply_type: type[ReplyT], header: dict[str, Any]) -> ReplyT:
        try:
            if "error" in header:
                failure = ErrorReply.model_validate(header).error
                raise AgentError(failure.code, f"{self._device_name}, {action}: {failure.message}")
            reply = reply_type.model_validate(header)
        except ValidationError as error:
            raise self.lost(action, f"it broke the protocol: {first_problem(error)}") from None
        if reply.id != self._next_id:
            raise self.lost(action, f"it answered request {reply.id} instead of {self._next_id}")
        return reply


# How often a run, or a load, is to give a sign of life...
HEARTBEAT_S = 10

# ...and the silence after which the agent counts as hung. One execution, or another program that takes all of the
# processor, may swallow many signs.
SILENCE_LIMIT_S = 180.0

# An agent that gives none answers only when the whole schedule is done; an hour is beyond any batch of today.
RUN_TIMEOUT_S = 3600.0

# Core ML compiles a model for the neural engine at its first load there, which took 97 and 273 s in public reports
# of large ones. Signs of life can't tell a load that hangs from one that compiles.
LOAD_LIMIT_S = 1200.0


@dataclass(frozen=True)
class RunResult:
    """`samples[r, v]`: nanoseconds (int64) of the visit at position v of round r.

    `warmed`: how the run was warmed up by time; None where it was not. `operations` is, for each handle,
    what a model loaded with the option `trace` executed; empty where none was.
    """

    samples: np.ndarray
    state_before: DeviceState
    state_after: DeviceState
    warmed: messages.Warmed | None = None
    operations: tuple[tuple[messages.TracedOperation, ...], ...] = ()


class AgentClient:
    """Speaks to the agent at the other end of `sock`, which it owns and closes.

    Raises AgentError where the agent answers with an error (the connection stays usable) and AgentLostError where
    the connection breaks, the agent takes longer than `timeout_s`, or breaks the protocol (it does not).
    """

    def __init__(
        self,
        sock: socket.socket,
        token: str,
        timeout_s: float = 60.0,
        device_name: str = "host",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = Channel(sock, timeout_s, device_name, clock_s)
        self._token = token
        self._names: dict[str, str] = {}
        self._loaded: dict[int, str] = {}
        self._hello: messages.HelloReply | None = None
        self._clock_s, self._load_ends_s = clock_s, -math.inf

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
        if kind is None and not self._channel.closed:
            with contextlib.suppress(AgentLostError, AgentError):
                self.bye()
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone, by whichever side."""
        return self._channel.closed

    @property
    def load_left_s(self) -> float:
        """How long a load that the connection was lost in may still keep the agent busy; 0 where there was none."""
        return max(0.0, self._load_ends_s - self._clock_s())

    def close(self) -> None:
        """Drops the connection without a word; the agent then frees all it loaded for it."""
        self._channel.close()

    def hello(self) -> messages.HelloReply:
        """Authenticates; must be first. The answer is kept, and later calls return it; a refusal closes."""
        if self._hello is None:
            fields = {"op": "hello", "protocol": PROTOCOL_VERSION, "token": self._token}
            try:
                self._hello, _ = self._channel.ask("greeting", messages.HelloReply, fields)
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
        size_bytes = file_size(path)
        digest = sha256 or file_digest(path)
        self._names[digest] = path.name
        have = {"op": "have", "sha256": digest}
        held, _ = self._channel.ask(f"asking for {path.name}", messages.HaveReply, have)
        if held.present:
            return False
        self._channel.ask(
            f"receiving {path.name}",
            messages.PutReply,
            {"op": "put", "sha256": digest},
            size_bytes,
            file_chunks(path, size_bytes, progress),
        )
        return True

    def load(
        self,
        sha256: str,
        runtime: str,
        options: Mapping[str, bool | int | str] | None = None,
        waited: Callable[[float], None] = lambda _: None,
    ) -> messages.LoadReply:
        """Loads a stored model afresh; each call is one more copy in the agent's memory.

        It may take LOAD_LIMIT_S. `waited` is told every HEARTBEAT_S how many seconds it has taken, where the agent
        gives signs of life in a load; such an agent's reply has no placement, which `placement` asks for.
        """
        name = self._names.get(sha256, sha256[:12])
        fields: dict[str, Any] = {
            "op": "load",
            "sha256": sha256,
            "runtime": runtime,
            "options": dict(options or {}),
        }
        if self._gives_signs("placement"):
            fields["placement"] = False
        loaded = self._patiently(f"loading {name} with {runtime}", messages.LoadReply, fields, waited)
        self._loaded[loaded.handle] = name
        return loaded

    def placement(
        self, handle: int, waited: Callable[[float], None] = lambda _: None
    ) -> messages.Placement | None:
        """Which unit runs which operation of a loaded model, which may take as long as its load.

        None where the runtime does not tell, and where the agent tells it in the reply to the load.
        """
        if not self._gives_signs("placement"):
            return None
        fields = {"op": "placement", "handle": handle}
        action = f"placing {self._name(handle)}"
        return self._patiently(action, messages.PlacementReply, fields, waited).placement

    def unload(self, handle: int) -> None:
        """Frees a loaded model."""
        fields = {"op": "unload", "handle": handle}
        self._channel.ask(f"unloading {self._name(handle)}", messages.UnloadReply, fields)
        self._loaded.pop(handle, None)

    def check(self, handle: int, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs for `inputs`, for comparison with PyTorch."""
        payload = messages.pack(inputs)
        specs = [messages.spec_of(array).model_dump() for array in inputs]
        fields = {"op": "check", "handle": handle, "inputs": specs}
        action = f"checking {self._name(handle)}"
        reply, raw = self._channel.ask(action, messages.CheckReply, fields, len(payload), [payload])
        try:
            return messages.unpack(reply.outputs, raw)
        except ValueError as error:
            raise self._channel.lost(action, f"it broke the protocol: {error}") from None

    def run(
        self,
        handles: Sequence[int],
        order: Sequence[Sequence[int]],
        warmup: int = 0,
        warmup_ms: int = 0,
        pace_us: int = 0,
        keep_warm: bool | None = None,
    ) -> RunResult:
        """Times the schedule on the device: `order[r][v]` is an index into `handles`.

        Every model is visited `warmup` times before the first round, and then all in turn until latencies stop
        falling, for `warmup_ms` at most, where the agent can do that. With `pace_us` a visit of a round begins no
        sooner than that after the one before (UsageError where the agent can't). `keep_warm` has the processor kept
        busy before visits, or not, where the agent can be told; None leaves that to its user. Rounds must be
        equally long, and the schedule at most 200,000 visits and 1 MiB of JSON (UsageError).
        """
        visits = len(order[0]) if order else 0
        if not visits or len(order) * visits > MAX_VISITS:
            raise UsageError(
                f"a schedule of {len(order)} rounds of {visits} visits is refused: it needs 1 to "
                f"{MAX_VISITS} visits in all; split it into several runs"
            )
        fields: dict[str, Any] = {
            "op": "run",
            "handles": list(handles),
            "order": [list(map(int, visited)) for visited in order],
            "warmup": warmup,
        }
        action = "timing " + ", ".join(dict.fromkeys(self._name(handle) for handle in handles))
        if warmup_ms and self._hello is not None and self._hello.timed_warmup:
            fields["warmup_ms"] = warmup_ms
        if pace_us and self._hello is not None:
            if not self._hello.pace:
                raise UsageError(
                    f"{self._hello.agent.name} is too old for --pace; install its current version"
                )
            fields["pace_us"] = pace_us
        if keep_warm is not None and self._hello is not None and self._hello.keep_warm:
            fields["keep_warm"] = keep_warm
        beats = self._hello is not None and self._hello.heartbeat
        if beats:
            fields["heartbeat_s"] = HEARTBEAT_S
        silence_s = SILENCE_LIMIT_S if beats else RUN_TIMEOUT_S
        reply, raw = self._channel.ask(action, messages.RunReply, fields, at_least_s=silence_s, beats=beats)
        if (reply.rounds, reply.visits) != (len(order), visits) or len(raw) != 8 * len(order) * visits:
            raise self._channel.lost(
                action, f"it broke the protocol: {len(raw)} bytes for {len(order)} x {visits} samples"
            )
        samples = np.frombuffer(raw, dtype=">u8").astype(np.int64).reshape(len(order), visits)
        operations = tuple(tuple(traced) for traced in reply.operations)
        return RunResult(samples, reply.state_before, reply.state_after, reply.warmed, operations)

    def state(self) -> DeviceState:
        """The device's state now."""
        reply, _ = self._channel.ask("reading the device's state", messages.StateReply, {"op": "state"})
        return reply.state

    def bye(self) -> None:
        """Ends the connection in agreement."""
        self._channel.ask("saying goodbye", messages.ByeReply, {"op": "bye"})
        self.close()

    def _gives_signs(self, op: str) -> bool:
        return self._hello is not None and op in self._hello.heartbeat_ops

    def _patiently(
        self,
        action: str,
        reply_type: type[ReplyT],
        fields: dict[str, Any],
        waited: Callable[[float], None],
    ) -> ReplyT:
        """The reply to a request that may take LOAD_LIMIT_S, silently only where the agent gives no signs."""
        beats = self._gives_signs(fields["op"])
        if beats:
            fields["heartbeat_s"] = HEARTBEAT_S
        silence_s = SILENCE_LIMIT_S if beats else LOAD_LIMIT_S
        self._load_ends_s = self._clock_s() + LOAD_LIMIT_S
        try:
            reply, _ = self._channel.ask(
                action,
                reply_type,
                fields,
                at_least_s=silence_s,
                beats=beats,
                limit_s=LOAD_LIMIT_S,
                waited=waited,
            )
        except AgentError:
            self._load_ends_s = -math.inf
            raise
        self._load_ends_s = -math.inf
        return reply

    def _name(self, handle: int) -> str:
        return self._loaded.get(handle, f"handle {handle}")
