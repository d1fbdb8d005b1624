"""Errors of devices and of the wire: no device, a broken frame, an agent that refuses or is gone."""

from __future__ import annotations

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError

_BY_AGENT_CODE = {
    "bad_model": 6,
    "hash_mismatch": 6,
    "bad_option": 2,
    "unknown_runtime": 2,
    "busy": 3,
    "unauthorized": 3,
    "protocol_version": 3,
}


class DeviceError(BlocktimeError):
    """A device was not found, refused the connection or was lost."""


class FrameError(BlocktimeError):
    """A byte stream broke the framing rules; `code` is PROTOCOL.md's error code."""

    def __init__(self, code: str, message: str) -> None:
        """Create the error with PROTOCOL.md's error code."""
        super().__init__(message, code=code)


class AgentError(BlocktimeError):
    """A request failed: raised in the agent, sent as its answer, and raised again in the client.

    Attributes:
        code: PROTOCOL.md's error code.
        closes: Whether the answer ends the connection; only the agent needs it, PROTOCOL.md lists the codes.
    """

    def __init__(self, code: str, message: str, *, closes: bool = False) -> None:
        """Create the error with PROTOCOL.md's error code."""
        super().__init__(message, code=code)
        self.closes = closes


class AgentLostError(DeviceError):
    """The connection to the agent broke, or the agent broke the protocol; a new connection is needed."""


def exit_code(error: BlocktimeError) -> int:
    """Return a program's exit code for an error: 2 usage, 3 device, 6 invalid file, 1 anything else."""
    if isinstance(error, AgentError):
        return _BY_AGENT_CODE.get(error.code, 1)
    by_class = {UsageError: 2, DeviceError: 3, InvalidArtifactError: 6}
    return next((code for cls, code in by_class.items() if isinstance(error, cls)), 1)
