"""The error that an operation of the agent answers with."""

from __future__ import annotations


class OpError(Exception):
    """A request failed; `code` is one of PROTOCOL.md's. The connection goes on unless `closes`."""

    def __init__(self, code: str, message: str, *, closes: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.closes = closes
