"""The phone's system process: the commands of its shell are thin clients of it, as they are on Android.

A command's script connects to a socket, passes its arguments and its stdin, stdout and stderr, and ends with the
exit code that it gets back. So `pm`, `am` and the like run as functions of the process that plays the phone.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_MAX_REQUEST_BYTES = 64 * 1024

_CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode()
socket.send_fds(server, [request + b"\\n"], [0, 1, 2])
code = server.recv(1)
sys.exit(code[0] if code else 255)
"""


@dataclass(frozen=True)
class Terminal:
    """A command's stdin, stdout and stderr."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def say(self, text: str) -> int:
        """One line on stdout, and exit code 0."""
        self.stdout.write(text.encode() + b"\n")
        return 0

    def fail(self, text: str, code: int = 1) -> int:
        """One line on stderr, and the exit code."""
        self.stderr.write(text.encode() + b"\n")
        return code


# Takes the arguments after the command's name; answers its exit code.
Command = Callable[[list[str], Terminal], int]


class SystemServer:
    """Serves commands of these names from scripts in `folder`, which belongs on the shell's PATH."""

    def __init__(self, folder: Path, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        # Lines of commands that failed here because of a defect of the fake; tests expect none.
        self.defects: list[str] = []
        address = folder / ".system"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        script = folder / ".call"
        script.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
        script.chmod(0o755)
        for name in commands:
            (folder / name).symlink_to(script.name)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        descriptors = array.array("i")
        with client, contextlib.ExitStack() as files:
            request = bytearray()
            while not request.endswith(b"\n") and len(request) < _MAX_REQUEST_BYTES:
                data, passed, _, _ = socket.recv_fds(client, _MAX_REQUEST_BYTES, 3)
                descriptors.extend(passed)
                if not data:
                    break
                request += data
            opened = [
                files.enter_context(os.fdopen(descriptor, mode, buffering=0))
                for descriptor, mode in zip(descriptors, ("rb", "wb", "wb"), strict=True)
            ]
            code = self._run(json.loads(request), Terminal(*opened))
            with contextlib.suppress(OSError):
                client.sendall(bytes([code]))

    def _run(self, argv: list[str], terminal: Terminal) -> int:
        try:
            return self._commands[argv[0]](argv[1:], terminal)
        except BrokenPipeError:
            return 1
        except Exception as error:
            self.defects.append(f"{' '.join(argv)}: {type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                terminal.fail(self.defects[-1])
            return 255
