"""One connection to an agent: a request out, its reply in; broken for good once anything else happens."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.messages import first_problem
from orchestrator.wire.errors import AgentError, AgentLost, FrameError
from orchestrator.wire.frames import encode_header, read_frame
from orchestrator.wire.replies import ErrorReply, Reply, RunningReply

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
            AgentLost: the connection broke or was closed, or the agent broke the protocol.
            InvalidArtifactError: the payload could not be read to its end; the connection is closed.
        """
        if self.closed:
            raise AgentLost(
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

    def lost(self, action: str, reason: str) -> AgentLost:
        """Closes; the error that says so."""
        self.close()
        return AgentLost(
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
