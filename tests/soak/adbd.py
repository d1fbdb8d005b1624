"""Transport faults between `bench` and a real adb daemon, in a process with a network of its own.

    unshare ... python -m tests.soak.adbd ADBD

The daemon runs shell commands for everybody who connects, see tests/support/real_adbd.py. Programs of Android are
scripts here, which ask this process; the app listens on the loopback of that network, as on a phone.

Each line of stdin is a seed, {"kind", "transport", "seed", "folder"}; its outcome is a line of stdout.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from adbutils import AdbClient

from orchestrator.agent.agent import LOOPBACK, PHONE_PORT
from tests.soak import transport
from tests.soak.faults import Fault, Outcome
from tests.soak.phones import AndroidPhone, FaultyPhone, share_key
from tests.support.fake_android import FakeAndroid
from tests.support.proxy import Proxy
from tests.support.real_adbd import ADBD, NAMESPACES, ROOT, deny_vsock, missing

_DAEMON_PORT = 15557  # local adb servers take ports 5555 to 5585 for emulators
_SERVER_PORT = 15037
_ANSWER_S = 3 * transport.LIMIT_S
_PROGRAMS = ("am", "cmd", "content", "df", "dumpsys", "getprop", "input", "logcat", "pidof", "pm")
_ASK = """
import json, socket, sys
given = sys.stdin.readline() if sys.argv[2] == "content" else ""
with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rw") as stream:
    sock.connect(sys.argv[1])
    stream.write(json.dumps([sys.argv[2:], given]) + chr(10))
    stream.flush()
    output, code = json.loads(stream.readline())
print(output)
sys.exit(code)
"""


class PhoneSystem:
    """The daemon, and the programs of Android that its shell finds; they are those of `phone`."""

    phone: FakeAndroid | None = None

    def __init__(self, adbd: str, folder: Path) -> None:
        self._adbd, programs = adbd, folder / "bin"
        programs.mkdir()
        (folder / "ask.py").write_text(_ASK)
        for name in _PROGRAMS:
            words = [sys.executable, "-S", "-E", folder / "ask.py", folder / "socket", name]
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
            (programs / name).chmod(0o755)
        self._path = f"{programs}:{os.environ['PATH']}"
        handler = type("Handler", (_Handler,), {"system": self})
        server = socketserver.ThreadingUnixStreamServer(str(folder / "socket"), handler)
        threading.Thread(target=server.serve_forever, name="programs", daemon=True).start()
        self.start()

    def start(self) -> None:
        """Start the daemon, and wait until it listens."""
        environment = {**os.environ, "ADBD_PORT": str(_DAEMON_PORT), "PATH": self._path}
        self._daemon = subprocess.Popen(
            [self._adbd], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection((LOOPBACK, _DAEMON_PORT), 1).close()
            except OSError:
                assert time.monotonic() < deadline_s, "adbd does not listen"
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill the daemon."""
        self._daemon.kill()
        self._daemon.wait()

    def answer(self, words: list[str], given: str) -> tuple[str, int]:
        """Return output and exit code of a program."""
        command = " ".join(words)
        if words[0] == "content":
            command = f'read -r t && printf %s "$t" | {command}'
        assert self.phone is not None
        return self.phone.run(command, io.BytesIO(given.encode() + b"\n"))


class _Handler(socketserver.StreamRequestHandler):
    system: PhoneSystem

    def handle(self) -> None:
        answer = self.system.answer(*json.loads(self.rfile.readline()))
        self.wfile.write(json.dumps(answer).encode() + b"\n")


SYSTEM: PhoneSystem | None = None


class RealAdbdPhone(AndroidPhone):
    """A Pixel 8 with a real adb daemon, to which `bench` connects itself; the proxy is between them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PHONE_PORT)

    def _connect(self) -> None:
        assert SYSTEM is not None
        self._system = SYSTEM
        self._system.phone = self.fake
        self.proxy = Proxy(lambda: socket.create_connection((LOOPBACK, _DAEMON_PORT)))
        self.target = self.fake.serial = f"{LOOPBACK}:{self.proxy.port}"
        self.environment = {**self.environment, "ANDROID_ADB_SERVER_PORT": "1"}
        share_key(self.folder)

    def reboot(self, away_s: float) -> None:
        self.proxy.is_down = True
        self._system.stop()
        super().reboot(away_s)
        self.later(0.6 * away_s, self._come_back)

    def _come_back(self) -> None:
        self._system.start()
        self.proxy.is_down = False

    def close(self) -> None:
        FaultyPhone.close(self)
        if self.proxy.is_down and self._system._daemon.poll() is not None:
            self._system.start()


class ServedAdbdPhone(RealAdbdPhone):
    """The same phone behind a real adb server; the proxy is between that server and the daemon."""

    def _connect(self) -> None:
        super()._connect()
        self.environment = {"HOME": str(self.folder), "ANDROID_ADB_SERVER_PORT": str(_SERVER_PORT)}

    def close(self) -> None:
        super().close()
        AdbClient(LOOPBACK, _SERVER_PORT).disconnect(self.target)


TRANSPORTS: dict[str, type[RealAdbdPhone]] = {"adbd": RealAdbdPhone, "adbd-and-server": ServedAdbdPhone}


def serve(adbd: str) -> None:
    """Run the seeds that come on stdin."""
    global SYSTEM
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    deny_vsock()
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    transport.TRANSPORTS |= TRANSPORTS
    with tempfile.TemporaryDirectory(prefix="soak-adbd-") as folder:
        SYSTEM = PhoneSystem(adbd, Path(folder))
        for line in sys.stdin:
            try:
                seed = json.loads(line)
                outcome = transport.run(seed["kind"], seed["transport"], seed["seed"], Path(seed["folder"]))
            except Exception as error:
                outcome = Outcome(wrong=1, detail=f"{type(error).__name__}: {error}"[:1000])
            print(json.dumps(asdict(outcome)), file=results, flush=True)


class Worker:
    """That process, started when the first seed is run, and again after one that does not answer."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, kind: str, transport_name: str, seed: int, folder: Path) -> Outcome:
        """Return the outcome of a seed."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        document = {"kind": kind, "transport": transport_name, "seed": seed, "folder": str(folder)}
        process.stdin.write(json.dumps(document) + "\n")
        process.stdin.flush()
        timer = threading.Timer(_ANSWER_S, self.stop)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            self.stop()
            return Outcome(hung=1, detail=f"no outcome within {_ANSWER_S:.0f} s")
        return Outcome(**json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "ADBUTILS_ADB_PATH"}
        command = [*NAMESPACES, sys.executable, "-m", "tests.soak.adbd", str(ADBD)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        log = tempfile.TemporaryFile()  # noqa: SIM115 - of the process
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, **pipes)
        atexit.register(self.stop)
        return self._process

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()


WORKER = Worker()

FAULTS = [
    Fault(f"transport/{name}/{kind}", partial(WORKER.run, kind, name), transport.SEEDS, missing)
    for name in TRANSPORTS
    for kind in transport.KINDS
]


if __name__ == "__main__":
    serve(sys.argv[1])
