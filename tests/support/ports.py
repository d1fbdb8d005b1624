"""Ports for programs that can't choose a free one themselves, and ports where nothing listens."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Under the ports that Linux (from 32768) and macOS (from 49152) give to whoever asks for any.
_PORTS = range(20_000, 32_000)

_held: list[IO[str]] = []


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections meanwhile: it is taken, and nothing listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def own_port() -> int:
    """A port that nothing listens on; neither the system nor another test process takes it while this runs."""
    for port in random.sample(_PORTS, 100):
        lock = (Path(tempfile.gettempdir()) / f"blocktime-test-port-{port}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
    raise AssertionError("100 of 100 ports are taken")
