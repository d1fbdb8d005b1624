"""The services that run a shell command: `shell:`, `shell,v2:` and `exec:`."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.fakephone.stream import Stream, StreamClosed

_CHUNK_BYTES = 32 * 1024
# AOSP shell_protocol.h: u8 id, u32 little-endian length.
_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN, _WINDOW_SIZE = range(6)


@dataclass(frozen=True)
class Shell:
    """Runs commands in a folder, with an environment; one whose client goes away is hung up on."""

    folder: Path
    environment: Mapping[str, str]

    def run_plain(self, stream: Stream, command: str) -> None:
        """stdin, and stdout with stderr in it, nothing around them; the stream's end is the command's."""
        with self._start(command, subprocess.STDOUT) as process:
            _in_background(_feed, process, iter(stream.read, b""))
            for part in _parts(process.stdout):
                stream.write(part)

    def run_v2(self, stream: Stream, command: str) -> None:
        """Packets of shell_protocol.h, the exit code among them."""
        with self._start(command, subprocess.PIPE) as process:
            _in_background(_feed, process, _stdin_parts(stream))
            errors = _in_background(_send_packets, stream, _STDERR, process.stderr)
            _send_packets(stream, _STDOUT, process.stdout)
            errors.join()
            code = process.wait()
            stream.write(_PACKET.pack(_EXIT, 1) + bytes([code if code >= 0 else 128 - code]))

    def _start(self, command: str, stderr: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
        )


def _in_background(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _feed(process: subprocess.Popen[bytes], parts: Iterator[bytes]) -> None:
    """Writes what the client sends to the command's stdin; hangs up when the client goes before it ends.

    An empty part closes stdin; the end of the parts is the client's.
    """
    assert process.stdin is not None
    for part in parts:
        with contextlib.suppress(OSError, ValueError):  # the command may not want it
            if part:
                process.stdin.write(part)
            else:
                process.stdin.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGHUP)


def _stdin_parts(stream: Stream) -> Iterator[bytes]:
    """stdin out of the client's packets, b"" where the client closes it."""
    received = bytearray()
    for part in iter(stream.read, b""):
        received += part
        while len(received) >= _PACKET.size:
            kind, size = _PACKET.unpack_from(received)
            if len(received) < _PACKET.size + size:
                break
            data = bytes(received[_PACKET.size : _PACKET.size + size])
            del received[: _PACKET.size + size]
            if kind == _STDIN and data:
                yield data
            elif kind == _CLOSE_STDIN:
                yield b""


def _parts(pipe: IO[bytes] | None) -> Iterator[bytes]:
    assert pipe is not None
    return iter(lambda: os.read(pipe.fileno(), _CHUNK_BYTES), b"")


def _send_packets(stream: Stream, kind: int, pipe: IO[bytes] | None) -> None:
    with contextlib.suppress(StreamClosed):
        for part in _parts(pipe):
            stream.write(_PACKET.pack(kind, len(part)) + part)
