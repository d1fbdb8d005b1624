"""An iPhone as seen through usbmuxd: its values, the computers that it trusts, its apps, and its user."""

from __future__ import annotations

import contextlib
import os
import plistlib
import secrets
import socket
import ssl
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.devices.common.device import Access
from orchestrator.devices.iphone.phones import open_driver
from tests.support.fake_lockdown import LockdownSession, public_key_pem
from tests.support.phone_apps import App, relay

IPHONE_13 = "iphone13"
LOCKDOWN_PORT = 62078
AGENT_PORT = 47613
BUNDLE = "dev.blocktime.bench.ABCDE12345"
BUILDS = {"15.8": "19H370", "16.7.10": "20H350", "17.2": "21C62", "17.6": "21G80", "18.1": "22B83"}

_CODE_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"

Talk = Callable[[socket.socket], None]
"""Serves a connection until it ends."""


@dataclass
class FakeIphone:
    """A phone whose attributes a test may change at any time.

    Attributes:
        app: Runs while the app is open.
        owner: What the user does when asked whether to trust a computer; `locked`: the phone shows its lock screen
            and does not ask.
        trusts_after: How often the dialog is reported as open before the user acts; at least once on a real phone.
        locked: The passcode has not been typed since the phone started.
        refused_calls: Connections to lockdownd that are still refused, as after the cable was plugged in.
        developer_image: The developer disk image is mounted, so that a computer can start apps.
        in_front: The app is on the screen.
        refuses_apps: The error of every installation, empty for none.
        missing_services: Services that its lockdownd does not know.
        hosts: Pair records of the computers that it trusts, by HostID.
        media: Files that computers stored, by path.
        launches: Environments in which a computer started the app.
        launched: Bundle identifiers under which it did.
    """

    app: App
    udid: str = "00008110-001A2B3C4D5E801E"
    product_type: str = "iPhone14,5"
    ios: str = "16.7.10"
    name: str = "Test iPhone"
    owner: Literal["trusts", "denies", "away", "locked"] = "trusts"
    trusts_after: int = 1
    locked: bool = False
    refused_calls: int = 0
    developer_mode: bool = True
    developer_image: bool = True
    in_front: bool = False
    refuses_apps: str = ""
    missing_services: tuple[str, ...] = ()
    media_bytes: int = 1 << 30
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: dict[str, bytearray] = field(default_factory=dict)
    launches: list[dict[str, str]] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    pid: int = 0
    _agent_port: int = 0
    _services: dict[int, Talk] = field(default_factory=dict)
    _app_sockets: list[socket.socket] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def values(self, trusted: bool) -> dict[str, Any]:
        """Return the values that lockdownd reports, fewer to a computer that is not trusted."""
        values: dict[str, Any] = {
            "BuildVersion": BUILDS.get(self.ios, "21A1"),
            "CPUArchitecture": "arm64e",
            "DeviceClass": "iPhone",
            "DeviceName": self.name,
            "DevicePublicKey": public_key_pem(),
            "HardwareModel": "D17AP",
            "PasswordProtected": self.locked,
            "ProductName": "iPhone OS",
            "ProductType": self.product_type,
            "ProductVersion": self.ios,
            "ProtocolVersion": "2",
            "UniqueDeviceID": self.udid,
            "WiFiAddress": "02:00:00:00:00:01",
        }
        if trusted:
            values |= {
                "ActivationState": "Activated",
                "SerialNumber": "TEST00000001",
                "TimeIntervalSince1970": 1700000000.0,
                "TotalDiskCapacity": 128000000000,
                "UniqueChipID": int(self.udid.split("-")[1], 16),
            }
        return values

    def major(self) -> int:
        """Return the first number of its iOS version."""
        return int(self.ios.split(".")[0])

    def install_app(self, bundle: str = BUNDLE, build: str = "1") -> None:
        """Add the app as installed earlier."""
        self.apps[bundle] = {
            "ApplicationType": "User",
            "CFBundleIdentifier": bundle,
            "CFBundleShortVersionString": "0.1.0",
            "CFBundleVersion": build,
        }

    def tap_icon(self) -> str:
        """Open the app as the user does, and return the pairing code that it shows."""
        with self._lock:
            if not self.pid:
                code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(8))
                self._start({"BLOCKTIME_TOKEN": code})
                self._shown = code
            return self._shown

    def launch(self, environment: Mapping[str, str]) -> int:
        """Restart the app as a computer does, and return its process id."""
        with self._lock:
            self.quit_app()
            self.launches.append(dict(environment))
            self.in_front = True
            self._start(environment)
            self._shown = ""
            return self.pid

    def show(self, environment: Mapping[str, str]) -> int:
        """Bring the app to the front as a computer does, or start it, and return its process id."""
        with self._lock:
            self.in_front = True
            return self.pid or self.launch(environment)

    def quit_app(self) -> None:
        """End the app and the connections to it."""
        with self._lock:
            self.app.stop()
            self.pid = self._agent_port = 0
            sockets, self._app_sockets = self._app_sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _start(self, environment: Mapping[str, str]) -> None:
        self._agent_port = self.app.start(environment)
        self.pid = 1000 + len(self.launches) + os.getpid() % 1000

    def dial(self, port: int) -> Talk | None:
        """Return what serves a connection to a port of the phone, None if nothing listens there."""
        if port == LOCKDOWN_PORT:
            if self.refused_calls:
                self.refused_calls -= 1
                return None
            return lambda sock: LockdownSession(self, sock).serve()
        if port == AGENT_PORT:
            return self._dial_app()
        with self._lock:
            return self._services.pop(port, None)

    def open_service(
        self, talk: Callable[[FakeIphone, socket.socket, ssl.SSLContext], None], tls: ssl.SSLContext
    ) -> int:
        """Return a port on which a service answers once."""
        with self._lock:
            port = secrets.choice([port for port in range(49152, 65535) if port not in self._services])
            self._services[port] = lambda sock: talk(self, sock, tls)
            return port

    def _dial_app(self) -> Talk | None:
        try:
            agent = socket.create_connection(("127.0.0.1", self._agent_port), timeout=300)
        except (OSError, OverflowError):
            return None
        agent.settimeout(None)
        with self._lock:
            self._app_sockets.append(agent)
        return lambda sock: relay(sock, agent)


class PhoneUser:
    """Receives the messages of `bench`; answers questions by `answers`, else by the code that the phone shows."""

    def __init__(self, phone: FakeIphone) -> None:
        self.messages: list[str] = []
        self.questions: list[str] = []
        self.answers: list[Callable[[], str]] = []
        self._phone = phone

    def ask(self, prompt: str) -> str:
        self.questions.append(prompt)
        return self.answers.pop(0)() if self.answers else self._phone.tap_icon()

    @property
    def access(self) -> Access:
        return Access(say=self.messages.append, ask=self.ask)


def trust_now(phone: FakeIphone) -> None:
    """Pair the phone with this computer."""
    phone.trusts_after = 0
    open_driver().pair(phone.udid, 10)


def package(
    path: Path,
    bundle: str = BUNDLE,
    *,
    build: str = "1",
    signed: bool = True,
    devices: Sequence[str] | None = None,
) -> Path:
    """Write an .ipa; `devices` are those of its provisioning profile, which is left out without them.

    A profile is a property list between the bytes of a CMS envelope.
    """
    info = {
        "CFBundleIdentifier": bundle,
        "CFBundleShortVersionString": "0.2.0",
        "CFBundleVersion": build,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Payload/Bench.app/Info.plist", plistlib.dumps(info, fmt=plistlib.FMT_BINARY))
        archive.writestr("Payload/Bench.app/Bench", b"\0" * 300_000)
        if signed:
            archive.writestr("Payload/Bench.app/_CodeSignature/CodeResources", b"")
        if devices is not None:
            profile = plistlib.dumps({"Name": "iOS Team", "ProvisionedDevices": list(devices)})
            envelope = b"0\x82\x31\x10\x06\x09*\x86H\x86\xf7" + profile + b"\n\xa0\x82\x0e\x5a0\x82"
            archive.writestr("Payload/Bench.app/embedded.mobileprovision", envelope)
    return path
