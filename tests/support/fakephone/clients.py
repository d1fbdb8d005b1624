"""The official adb client, kept apart from any other adb of this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 300.0
_STEP_S = 0.05


@dataclass(frozen=True)
class OfficialAdb:
    """Its server listens on `port` and keeps its keys in `home`."""

    program: str
    port: int
    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Of every process that shall use this server."""
        return os.environ | {
            "HOME": str(self.home),
            "ANDROID_USER_HOME": str(self.home / ".android"),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "ADB_MDNS_AUTO_CONNECT": "0",
        }

    def run(
        self, *arguments: str, serial: str = "", stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `adb`, to the phone of that serial where it is given."""
        device = ["-s", serial] if serial else []
        return subprocess.run(
            [self.program, *device, *arguments],
            input=stdin,
            capture_output=True,
            env=dict(self.environment),
            timeout=_TIMEOUT_S,
        )

    @contextmanager
    def connected(self, serial: str, state: str = "device") -> Iterator[None]:
        """The server holds the phone meanwhile, and forgets it then: it lists for ever what nobody disconnects."""
        try:
            self._connect(serial, state)
            yield
        finally:
            self.run("disconnect", serial)

    def reconnect(self, serial: str) -> None:
        """At once; by itself the server tries every 10 s."""
        self.run("disconnect", serial)
        self._connect(serial, "device")

    def _connect(self, serial: str, state: str) -> None:
        """Asks again while the server does not list the phone: it drops one whose greeting came too late or broke
        off, as just after a reboot, and tries by itself only those that it lists. Raises TimeoutError."""
        give_up_s, said = time.monotonic() + _TIMEOUT_S, ""
        while not (now := self.state(serial)).startswith(state):
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{serial} is {now or 'not listed'}; adb connect said: {said}")
            if not now:
                said = self.run("connect", serial).stdout.decode().strip()
            time.sleep(_STEP_S)

    def state(self, serial: str) -> str:
        """The phone's line in `adb devices -l` after its serial, "" where it has none."""
        lines = self.run("devices", "-l").stdout.decode().splitlines()
        return next((line.partition(" ")[2].strip() for line in lines if line.startswith(serial)), "")
