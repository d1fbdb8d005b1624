"""Simulated phones behind a proxy, for transport faults: Android over an adb server and without one, and an iPhone.

Their models have constant latencies, so that every sample tells which model it is of.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from orchestrator.agent.agent import Agent
from orchestrator.agent.server import Server, listen
from orchestrator.simulate.device import Scenario, TrueCosts
from tests.support.fake_adbd import FakeAdbd
from tests.support.fake_android import FakeAdbServer, FakeAndroid
from tests.support.fake_iphone import FakeIphone, trust_now
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.phone_apps import ThreadApp
from tests.support.ports import own_port
from tests.support.proxy import Proxy
from tests.support.simulated_phone import SimulatedAgents

LOOPBACK = "127.0.0.1"
CONSTANT = Scenario(name="constant", costs=TrueCosts(base_ms=50.0))
"""A warm-up window is full after one call, so that most of a run's readings of its clock are those of samples."""
THIEVES = ("hangs up", "is silent", "sends garbage", "is another agent")


class JumpingClock:
    """A device's clock, which jumps by `ns` after `readings` more readings."""

    def __init__(self) -> None:
        self.ns = self.readings = 0
        self._offset_ns = 0

    def read(self, clock: Callable[[], int]) -> int:
        """Return `clock` with all jumps so far."""
        if self.ns and not self.readings:
            self._offset_ns += self.ns
            self.ns = 0
        self.readings = max(0, self.readings - 1)
        return clock() + self._offset_ns


class FaultyApp:
    """The app: an agent in a thread, behind a proxy. Another program can take its port.

    Unlike an agent in a thread alone, it ends its connections when it is killed. Each start has a machine of its
    own: that of a killed app may still be in a run.
    """

    def __init__(self, agents: Callable[[], SimulatedAgents], port: int = 0) -> None:
        self.clock = JumpingClock()
        self.front: Proxy | None = None
        self._agents, self._port = agents, port
        self._server: Server | None = None
        self._thief: Proxy | None = None

    def start(self, environment: Mapping[str, str]) -> int:
        """Start it; it can't listen while another program has its port."""
        self.stop()
        if self._thief is not None:
            return self._thief.port
        listener = listen(0)
        self._server = Server(self._agent(environment["BLOCKTIME_TOKEN"]), listener)
        threading.Thread(target=self._serve, args=(self._server, listener), name="app", daemon=True).start()
        address = listener.getsockname()
        self.front = Proxy(lambda: socket.create_connection(address), self._port)
        return self.front.port

    def _agent(self, token: str) -> Agent:
        agent = self._agents().start(token)
        return dataclasses.replace(agent, clock=lambda: self.clock.read(agent.clock))

    @staticmethod
    def _serve(server: Server, listener: socket.socket) -> None:
        server.serve()
        listener.close()

    def stop(self) -> None:
        """End it, and its connections."""
        front, self.front = self.front, None
        server, self._server = self._server, None
        if front is not None:
            front.close()
        if server is not None:
            server.stop()

    def lose_port(self, thief: str, folder: Path) -> int:
        """End it, and let another program listen in its place; return the port."""
        self.stop()
        other = ThreadApp(folder / "other") if thief == "is another agent" else None
        port = other.start({"BLOCKTIME_TOKEN": "of-somebody-else"}) if other else 0

        def dial() -> socket.socket:
            if thief == "hangs up":
                raise ConnectionRefusedError
            if other is not None:
                return socket.create_connection((LOOPBACK, port))
            near, far = socket.socketpair()
            if thief == "sends garbage":
                far.sendall(random.Random(0).randbytes(1000))
            self._ends.append(far)
            return near

        self._ends: list[socket.socket] = []
        self._thief = Proxy(dial, self._port)
        return self._thief.port

    def regain_port(self) -> None:
        """End the other program."""
        thief, self._thief = self._thief, None
        if thief is not None:
            thief.close()


class FaultyPhone(abc.ABC):
    """A phone and its way to the host.

    Attributes:
        target: What `--device` names.
        environment: Variables under which `bench` finds it.
        proxy: Between the host and what speaks for the phone.
        app: The app on it.
        store: Folder of the app's models.
    """

    target: str
    environment: Mapping[str, str]
    proxy: Proxy

    def __init__(self, folder: Path, runtime: str, model: str, app_port: int = 0) -> None:
        self.folder, self.store = folder, folder / "store"
        self.app = FaultyApp(
            lambda: SimulatedAgents(runtime, model, self.store, lambda: self.is_in_front, CONSTANT), app_port
        )
        self._timers: list[threading.Timer] = []

    @property
    @abc.abstractmethod
    def is_in_front(self) -> bool:
        """Whether the app is on the screen."""

    @abc.abstractmethod
    def kill_app(self) -> None:
        """End the app as the system does when memory is short."""

    @abc.abstractmethod
    def reboot(self, away_s: float) -> None:
        """Restart the phone, which can be reached again after a while."""

    @abc.abstractmethod
    def lose_port(self, thief: str) -> None:
        """Kill the app, and let another program take its port."""

    def regain_port(self) -> None:
        """End the program that has taken the app's port, and what is left of the app."""
        self.app.regain_port()
        self.kill_app()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after some seconds, unless the phone is closed before."""
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        """End everything."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self.proxy.close()
        self.app.regain_port()
        self.app.stop()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Let `bench` in this process find it."""
        with contextlib.closing(self), mock.patch.dict("os.environ", self.environment):
            yield


class AndroidPhone(FaultyPhone):
    """A Pixel 8 behind an adb server that this process plays; the proxy is between `bench` and that server."""

    target = "pixel8"

    def __init__(self, folder: Path, app_port: int = 0) -> None:
        super().__init__(folder, "executorch", "Pixel 8", app_port)
        self.fake = FakeAndroid(self.app, apk=b"an app", compiled=True)
        self.environment = {"ADBUTILS_ADB_PATH": str(folder / "no-adb"), "HOME": str(folder)}
        self._connect()

    def _connect(self) -> None:
        self._server = FakeAdbServer(self.fake)
        self.proxy = Proxy(lambda: socket.create_connection((LOOPBACK, self._server.port)))
        self.environment = {**self.environment, "ANDROID_ADB_SERVER_PORT": str(self.proxy.port)}

    @property
    def is_in_front(self) -> bool:
        return self.fake.in_front

    def kill_app(self) -> None:
        self.fake.stop_app()

    def reboot(self, away_s: float) -> None:
        self.fake.pull_cable()
        self.fake.stop_app()
        self.fake.properties["sys.boot_completed"] = "0"
        self.fake.unlocked = False
        self.later(0.4 * away_s, lambda: setattr(self.fake, "state", "offline"))
        self.later(0.6 * away_s, self.fake.plug_in)
        self.later(0.8 * away_s, lambda: self.fake.properties.update({"sys.boot_completed": "1"}))
        self.later(away_s, lambda: setattr(self.fake, "unlocked", True))

    def lose_port(self, thief: str) -> None:
        self.fake.stop_app()
        self.fake.port = self.app.lose_port(thief, self.folder)

    def close(self) -> None:
        super().close()
        self._server.close()


class DirectAndroidPhone(AndroidPhone):
    """A Pixel 8 on the network whose adb daemon this process plays; there is no adb server."""

    def _connect(self) -> None:
        self._daemon = FakeAdbd(self.fake)
        self._daemon._knows_key = True
        address = self.fake.serial.rpartition(":")
        self.proxy = Proxy(lambda: socket.create_connection((address[0], int(address[2]))))
        self.target = f"{LOOPBACK}:{self.proxy.port}"
        self.environment = {**self.environment, "ANDROID_ADB_SERVER_PORT": "1"}
        share_key(self.folder)

    def reboot(self, away_s: float) -> None:
        self.proxy.is_down = True
        super().reboot(away_s)
        self.proxy.cut_all()
        self.later(0.6 * away_s, lambda: setattr(self.proxy, "is_down", False))

    def close(self) -> None:
        FaultyPhone.close(self)
        self._daemon.close()
        self.fake.pull_cable()


_adb_key: dict[str, bytes] = {}


def share_key(home: Path) -> None:
    """Give a home folder the adb key of this process, which takes a while to make."""
    if not _adb_key:
        from adb_shell.auth.keygen import keygen

        keygen(str(home / "key"))
        _adb_key.update({end: (home / f"key{end}").read_bytes() for end in ("", ".pub")})
    (home / ".android").mkdir()
    for end, content in _adb_key.items():
        (home / f".android/adbkey{end}").write_bytes(content)


class Iphone(FaultyPhone):
    """An iPhone 13 behind a usbmuxd that this process plays; the proxy is between `bench` and that daemon."""

    target = "iphone13"
    _mux_port = 0
    _trusted: tuple[dict[str, bytes], dict[str, Any]] | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "coreml", "iPhone14,5")
        self.fake = FakeIphone(self.app)
        self.fake.install_app()
        self._usbmuxd = FakeUsbmuxd(folder / "usbmuxd")
        self._usbmuxd.plug_in(self.fake)
        # Always the same port: the driver of an address, with its thread, is never ended.
        Iphone._mux_port = Iphone._mux_port or own_port()
        self.proxy = Proxy(self._dial, Iphone._mux_port)
        self.environment = {
            "USBMUXD_SOCKET_ADDRESS": f"{LOOPBACK}:{self.proxy.port}",
            "HOME": str(folder),
        }

    def _dial(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self._usbmuxd.path))
        return sock

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        from pymobiledevice3 import common

        images = "developer_disk_image.repo.DeveloperDiskImageRepository.create"
        offline = mock.patch(images, side_effect=OSError("no internet"))
        home = mock.patch.object(common, "_HOMEFOLDER", self.folder / ".pymobiledevice3")
        with super().attached(), home, offline:
            self._trust()
            yield

    def _trust(self) -> None:
        """Pair it with this computer, by the same keys every time: they take a while to make."""
        if Iphone._trusted is None:
            trust_now(self.fake)
            Iphone._trusted = self._usbmuxd.pair_records, self.fake.hosts
        self._usbmuxd.pair_records, self.fake.hosts = Iphone._trusted
        self.proxy.carried.update({"up": 0, "down": 0})

    @property
    def is_in_front(self) -> bool:
        return self.fake.in_front

    def kill_app(self) -> None:
        self.fake.quit_app()

    def reboot(self, away_s: float) -> None:
        self._usbmuxd.unplug(self.fake)
        self.fake.quit_app()
        self.fake.in_front = False
        self.fake.refused_calls = 3
        self.later(0.7 * away_s, lambda: self._usbmuxd.plug_in(self.fake))
        self.later(away_s, lambda: setattr(self.fake, "refused_calls", 0))

    def lose_port(self, thief: str) -> None:
        self.fake.quit_app()
        self.fake._agent_port = self.app.lose_port(thief, self.folder)

    def close(self) -> None:
        super().close()
        self.fake.quit_app()
        self._usbmuxd.close()
