"""Errors of the wire: a broken frame, an agent that answers with an error, an agent that is gone."""

from __future__ import annotations

from luts.errors import BlocktimeError, DeviceError

_EXIT_CODES = {
    "bad_model": 6,
    "hash_mismatch": 6,
    "bad_option": 2,
    "unknown_runtime": 2,
    "busy": 3,
    "unauthorized": 3,
    "protocol_version": 3,
}


class FrameError(BlocktimeError):
    """A byte stream broke the framing rules; `code` is the error code that PROTOCOL.md gives it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AgentError(BlocktimeError):
    """The agent answered a request with an error; the connection stays usable.

    Only the codes that PROTOCOL.md lists as closing end it. `code` is one of PROTOCOL.md's error codes.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = _EXIT_CODES.get(code, 1)


class AgentLost(DeviceError):
    """The connection to the agent broke, or the agent broke the protocol; a new connection is needed."""
