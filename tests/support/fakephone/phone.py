"""A phone that is none: a system with its app, behind an adbd, at the end of a cable."""

from __future__ import annotations

import abc
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.fakephone.activity_manager import ActivityManager
from tests.support.fakephone.bench_app import PACKAGE, PHONE_PORT, AgentProgram
from tests.support.fakephone.cable import Cable
from tests.support.fakephone.daemon import FakeDaemon
from tests.support.fakephone.folders import Folders
from tests.support.fakephone.package_manager import PackageManager
from tests.support.fakephone.phone_state import PhoneState
from tests.support.fakephone.shell_service import Shell
from tests.support.fakephone.status_commands import StatusCommands
from tests.support.fakephone.system_server import SystemServer
from tests.support.fakephone.thread_app import AgentThread


def new_home() -> Path:
    """A folder for all that a phone keeps; not pytest's, for a UNIX socket's address has at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="blocktime-phone-"))
    Folders(home / "root").create()
    (home / "bin").mkdir()
    return home


class Phone(abc.ABC):
    """What is the same whichever adbd is in front. Connect an adb client to `serial`.

    A context manager: what the phone started ends with it. Change `state` and `app` to play faults.
    """

    def __init__(self, home: Path, program: AgentProgram | AgentThread, state: PhoneState | None) -> None:
        self._home = home
        self.state = state or PhoneState()
        self.folders = Folders(home / "root")
        self.app = program.app(self.folders.root / f"data/data/{PACKAGE}/files/models")
        self._activities = ActivityManager(self.state, self.app)
        self.packages = PackageManager(self.state, self.folders, self._activities.stop)
        status = StatusCommands(self.state, self.app, self.packages.run)
        self._server = SystemServer(
            home / "bin",
            {
                "am": self._activities.am,
                "cmd": status.cmd,
                "content": self._activities.content,
                "dumpsys": status.dumpsys,
                "getprop": status.getprop,
                "input": status.input,
                "logcat": status.logcat,
                "pidof": self._activities.pidof,
                "pm": self.packages.run,
                "sha256sum": self.folders.sha256sum,
            },
        )

    def attach(self, dial: Callable[[], socket.socket]) -> None:
        """Plugs the cable in; `dial` connects to adbd."""
        self.cable = Cable(dial)

    @property
    def serial(self) -> str:
        """What adb calls a phone on the network."""
        return f"127.0.0.1:{self.cable.port}"

    @property
    def defects(self) -> list[str]:
        """What went wrong that no fault explains; tests expect nothing."""
        return [*self._server.defects, *self.app.failures]

    @abc.abstractmethod
    def listen(self, port: int) -> socket.socket:
        """A socket that listens on a port of the phone's loopback, as some other app's would."""

    def pull_cable(self) -> None:
        self.cable.pull()

    def plug_in(self) -> None:
        self.cable.plug_in()

    def reboot(self) -> None:
        """All connections end and the app is gone with its token; the cable is plugged in again afterwards."""
        self.cable.pull()
        self.app.stop()
        self.cable.plug_in()

    def close(self) -> None:
        self.cable.close()
        self.app.close()
        self._server.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shell_environment(home: Path) -> dict[str, str]:
    """Of the phone's shell: its own commands first, then this machine's for cat, ls and the like."""
    return {"PATH": f"{home / 'bin'}:{os.defpath}", "HOME": "/", "LANG": "C.UTF-8"}


class FakePhone(Phone):
    """A phone whose adbd, `daemon`, is this program's own: it asks clients for their keys, as phones do."""

    def __init__(self, program: AgentProgram | AgentThread, state: PhoneState | None = None) -> None:
        home = new_home()
        super().__init__(home, program, state)
        # Where something else than the app listens: the phone's port to this machine's.
        self._ports: dict[int, int] = {}
        shell = Shell(self.folders.root, shell_environment(home))
        self.daemon = FakeDaemon(self.state, self.folders, shell, self._local_port)
        self.attach(self.daemon.dial)

    @property
    def defects(self) -> list[str]:
        return [*super().defects, *self.daemon.violations]

    def listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        self._ports[port] = listener.getsockname()[1]
        return listener

    def _local_port(self, port: int) -> int | None:
        return self.app.port if port == PHONE_PORT else self._ports.get(port)
