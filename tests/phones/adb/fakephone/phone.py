"""A phone that is none: a system with its app, behind an adbd, at the end of a cable."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from fakephone.activity_manager import ActivityManager
from fakephone.bench_app import PHONE_PORT, AgentProgram, BenchApp
from fakephone.cable import Cable
from fakephone.daemon import FakeDaemon
from fakephone.folders import Folders
from fakephone.package_manager import PackageManager
from fakephone.phone_state import PhoneState
from fakephone.shell_service import Shell
from fakephone.status_commands import StatusCommands
from fakephone.system_server import SystemServer


class PhoneSystem:
    """What is behind adbd, whichever adbd it is: folders, commands, packages and the app."""

    def __init__(self, program: AgentProgram, state: PhoneState) -> None:
        # Not pytest's folder: a UNIX socket's address has at most 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="blocktime-phone-"))
        self.state = state
        self.folders = Folders(self.home / "root")
        self.folders.create()
        self.app = BenchApp(program, self.folders.root / "data/data/dev.blocktime.bench/files/models")
        activities = ActivityManager(state, self.app)
        self.packages = PackageManager(state, self.folders, activities.stop)
        status = StatusCommands(state, self.app, self.packages.run)
        self.bin = self.home / "bin"
        self.bin.mkdir()
        self.server = SystemServer(
            self.bin,
            {
                "am": activities.am,
                "cmd": status.cmd,
                "content": activities.content,
                "dumpsys": status.dumpsys,
                "getprop": status.getprop,
                "input": status.input,
                "logcat": status.logcat,
                "pidof": activities.pidof,
                "pm": self.packages.run,
                "settings": status.settings,
            },
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of the phone's shell: its commands first, then this machine's for cat, ls and the like."""
        return {
            "PATH": f"{self.bin}:{os.defpath}",
            "HOME": "/",
            "TMPDIR": "/data/local/tmp",
            "LANG": "C.UTF-8",
        }

    def close(self) -> None:
        self.app.close()
        self.server.close()
        shutil.rmtree(self.home, ignore_errors=True)


class FakePhone:
    """Connect an adb client to `serial`. Use it as a context manager: what it started ends with it.

    `state` is the system's, `daemon` adbd's, `app` the benchmark's; change them to play faults.
    """

    def __init__(self, program: AgentProgram, state: PhoneState | None = None) -> None:
        self.state = state or PhoneState()
        self._system = PhoneSystem(program, self.state)
        self.app = self._system.app
        self.packages = self._system.packages
        self.folders = self._system.folders
        shell = Shell(self.folders.root, self._system.environment)
        self.daemon = FakeDaemon(self.state, self.folders, shell, self._local_port)
        self.cable = Cable(self.daemon.dial)
        # Ports of the phone that something else than the app listens on: phone's port to this machine's.
        self.ports: dict[int, int] = {}

    @property
    def serial(self) -> str:
        """What adb calls a phone on the network."""
        return f"127.0.0.1:{self.cable.port}"

    @property
    def defects(self) -> list[str]:
        """What went wrong that no fault explains: clients' violations of the protocol, and this fake's own."""
        return [*self.daemon.violations, *self._system.server.defects]

    def pull_cable(self) -> None:
        self.cable.pull()

    def plug_in(self) -> None:
        self.cable.plug_in()

    def reboot(self) -> None:
        """All connections end, the app with its token is gone; the cable is still plugged in afterwards."""
        self.cable.pull()
        self.app.stop()
        self.cable.plug_in()

    def close(self) -> None:
        self.cable.close()
        self._system.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _local_port(self, port: int) -> int | None:
        return self.app.port if port == PHONE_PORT else self.ports.get(port)
