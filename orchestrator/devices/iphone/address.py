"""Where usbmuxd listens, as libusbmuxd's variable USBMUXD_SOCKET_ADDRESS says it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from luts.format.errors import UsageError

VARIABLE = "USBMUXD_SOCKET_ADDRESS"


@dataclass(frozen=True)
class MuxAddress:
    """`value` is a socket's path or host:port; empty for the place where the system has it."""

    value: str

    @classmethod
    def from_environment(cls) -> MuxAddress:
        """From the variable: `UNIX:/path`, `/path` or `host:port`. UsageError for anything else."""
        text = os.environ.get(VARIABLE, "")
        if not text or text.startswith("/"):
            return cls(text)
        kind, colon, rest = text.rpartition(":")
        if (kind, rest[:1]) == ("UNIX", "/") or (kind and colon and ":" not in kind and _is_port(rest)):
            return cls(rest if kind == "UNIX" else text)
        raise UsageError(
            f"{VARIABLE}={text[:80]!r} is not an address of usbmuxd: write UNIX:/path or host:port"
        )

    def describe(self) -> str:
        """For people."""
        return self.value or "its usual place"

    @contextmanager
    def exported(self) -> Iterator[None]:
        """The variable as pymobiledevice3 reads it: without `UNIX:` before a path, which it takes for a host."""
        before = os.environ.get(VARIABLE)
        if not self.value or before == self.value:
            yield
            return
        os.environ[VARIABLE] = self.value
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536
