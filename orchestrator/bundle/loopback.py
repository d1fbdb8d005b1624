"""The client of an agent in the same process: requests out, replies in, as they are."""

from __future__ import annotations

import socket
from typing import Any, BinaryIO

from orchestrator.wire.errors import AgentError, AgentLost, FrameError
from orchestrator.wire.frames import CHUNK_BYTES, encode_header, read_frame

Header = dict[str, Any]


class Loopback:
    """Asks the agent at the other end of `sock`, which it owns; raises AgentLost where that ends."""

    def __init__(self, sock: socket.socket):
        self._sock, self._stream, self._next_id = sock, sock.makefile("rb"), 0

    def ask(self, fields: Header, payload: tuple[BinaryIO, int] | None = None) -> tuple[Header, bytes]:
        """The reply, without its id, and its payload; AgentError where it is an error.

        `payload` is read from a file, so many bytes.
        """
        header, raw = self.try_ask(fields, payload)
        if "error" in header:
            raise AgentError(header["error"]["code"], header["error"]["message"])
        return header, raw

    def try_ask(self, fields: Header, payload: tuple[BinaryIO, int] | None = None) -> tuple[Header, bytes]:
        """As `ask`; an error is a reply as any other."""
        self._next_id += 1
        left = payload[1] if payload else 0
        try:
            self._sock.sendall(encode_header({"id": self._next_id, **fields}, left))
            while payload and left:
                chunk = payload[0].read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise AgentLost("the bundle ended inside a model; copy it again")
                self._sock.sendall(chunk)
                left -= len(chunk)
            frame = read_frame(self._stream)
            if frame is None:
                raise AgentLost("the agent closed the connection")
            header, body = frame[0], frame[1].read()
        except (OSError, FrameError) as error:
            raise AgentLost(f"the agent was lost ({error}); run the bundle again, it goes on") from error
        return {name: value for name, value in header.items() if name != "id"}, body

    def close(self) -> None:
        """Ends the connection."""
        self._stream.close()
        self._sock.close()
