"""The benchmark app on the fake phone: a real agent of this machine, started and stopped as Android would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PACKAGE = "dev.blocktime.bench"
ACTIVITY = f"{PACKAGE}/.MainActivity"
PHONE_PORT = 47613
_STOP_S = 300.0


@dataclass(frozen=True)
class AgentProgram:
    """How the agent is started: a program with the options of PROTOCOL.md, on `port` (0: any free one).

    `prefix` comes before it, to start it in another network namespace.
    """

    argv: tuple[str, ...]
    simulate: str | None
    port: int = 0
    prefix: tuple[str, ...] = ()

    def command(self, store: Path) -> list[str]:
        simulate = ["--simulate", self.simulate] if self.simulate else []
        options = ["--store", str(store), "--port", str(self.port), "--parent-watch", *simulate]
        return [*self.prefix, *self.argv, *options]

    def app(self, store: Path) -> BenchApp:
        """The app that is this program."""
        return BenchApp(self, store)


class BenchApp:
    """At most one process; its token dies with it, its stored models stay."""

    def __init__(self, program: AgentProgram, store: Path) -> None:
        self._program = program
        self._store = store
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.token = ""
        self._port: int | None = None
        self.allowed: tuple[str, ...] = ()
        # What an agent said that ended before it listened; tests expect nothing.
        self.failures: list[str] = []

    @property
    def port(self) -> int | None:
        """The port of this machine that it listens on; None where it doesn't, as for a while after its start."""
        with self._lock:
            return self._port if self.pid is not None else None

    @property
    def pid(self) -> int | None:
        with self._lock:
            running = self._process is not None and self._process.poll() is None
            return self._process.pid if running and self._process is not None else None

    @property
    def log(self) -> str:
        """What the agent has written to its log since it was first started."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def give_token(self, token: str) -> None:
        """An agent that runs with another one is started anew, since a program takes it only at its start."""
        with self._lock:
            changed, self.token = token != self.token, token
            if changed and self.pid is not None:
                self._stop_process()
                self._start_process()

    def start(self, allowed: Sequence[str]) -> None:
        """Starts the agent unless it runs with the same reasons allowed; without a token nothing listens."""
        with self._lock:
            if self.pid is not None and self.allowed == tuple(allowed):
                return
            self.allowed = tuple(allowed)
            self._stop_process()
            if self.token:
                self._start_process()

    def stop(self) -> None:
        """As `am force-stop`, the system's low-memory killer and a reboot do."""
        with self._lock:
            self.token = ""
            self._stop_process()

    def close(self) -> None:
        self.stop()
        self._log.close()

    def _start_process(self) -> None:
        self._store.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "BLOCKTIME_TOKEN": self.token,
            "BLOCKTIME_ALLOW": ",".join(self.allowed),
        }
        self._process = subprocess.Popen(
            self._program.command(self._store),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        # `am start` does not wait either.
        threading.Thread(target=self._await_port, args=[self._process], daemon=True).start()

    def _await_port(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
        with self._lock:
            if process is not self._process:
                return
            if line:
                self._port = int(json.loads(line)["port"])
            else:
                self.failures.append(f"the agent did not start: {self.log[-2000:]}")

    def _stop_process(self) -> None:
        process, self._process, self._port = self._process, None, None
        if process is None:
            return
        process.kill()
        process.wait(_STOP_S)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
