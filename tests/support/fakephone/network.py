"""Network namespaces of other processes: sockets that are made there and used here."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable

_CLONE_NEWNET = 0x40000000


def make_in(pid: int, make: Callable[[], socket.socket]) -> socket.socket:
    """The socket that `make` makes in the network namespace of process `pid`. Raises OSError.

    A namespace can be entered by one thread alone, and a socket stays in that in which it was made.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def run() -> None:
        try:
            _enter(pid)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _enter(pid: int) -> None:
    """Moves the calling thread; Python has this as os.setns from 3.12 on."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(namespace)
