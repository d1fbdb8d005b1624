"""An Android phone that this process plays, and an adb server in front of it.

The phone answers the commands that `bench` gives, in the words of Android 15. The server speaks the protocol of
AOSP's SERVICES.TXT, also with the official client.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self

from orchestrator.agent.agent import PHONE_PORT
from orchestrator.devices.android.app import PACKAGE
from orchestrator.devices.android.link import AdbLink, LinkLostError, ServiceRefusedError
from tests.support.phone_apps import App, relay

PIXEL_8 = {"ro.product.model": "Pixel 8", "ro.hardware": "shiba", "sys.boot_completed": "1"}
EMULATED = {"ro.boot.qemu": "1", "ro.hardware": "ranchu"}
"""Properties of an emulator that differ from those of the phone that it shows."""

SERVER_VERSION = 41

APK = b"PK\x03\x04 an app \x00\x00APK Sig Block 42"
"""An app's file as far as it is looked at before it is installed: with the mark of a signature."""

Talk = Callable[[socket.socket], None]
Answer = tuple[str, int]


@dataclass
class FakeAndroid:
    """A phone with the app as its only program; tests change its attributes to play faults.

    Attributes:
        state: adb's word for it, `device` if it can be used; empty if it is not attached.
        apk: The installed app's file, None if it is not installed; `build` is its versionCode.
        compiled: Its code is compiled ahead, as `cmd package compile -m speed` leaves it; never after an install.
        install_failure: What the package manager answers instead of installing the app.
        answers: Pattern of a command, and the output and exit code that replace its own.
        commands: All commands that it was given.
        defects: Commands that it does not know; tests expect none.
    """

    app: App
    serial: str = "37281FDJH0042"
    state: str = "device"
    properties: dict[str, str] = field(default_factory=lambda: dict(PIXEL_8))
    apk: bytes | None = None
    build: str = "1"
    free_kib: int = 4 << 20
    compiled: bool = False
    runs_compiled: bool = False
    install_failure: str = ""
    screen_on: bool = True
    in_front: bool = False
    unlocked: bool = True
    has_fixed_performance: bool = True
    can_compile: bool = True
    log: str = "--------- beginning of main\n"
    token: str = ""
    allowed: tuple[str, ...] = ()
    port: int = 0
    starts: int = 0
    answers: list[tuple[str, str, int]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether the app runs."""
        return self.port != 0

    def pull_cable(self, state: str = "") -> None:
        """End all connections; adb then says `state`."""
        self.state = state
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def plug_in(self) -> None:
        """Attach it again."""
        self.state = "device"

    def reboot(self) -> None:
        """End all connections and the app, and come back."""
        self.pull_cable()
        self.stop_app()
        self.plug_in()

    def go_dark(self) -> None:
        """Switch the screen off."""
        self.screen_on = self.in_front = False

    def stop_app(self) -> None:
        """End the app, as `am force-stop` and the low-memory killer do; its token is gone with it."""
        self.token, self.port = "", 0
        self.app.stop()

    def talk(self, service: str) -> Talk | None:
        """Return what serves one connection to a service, None if the phone refuses it."""
        if service == f"tcp:{PHONE_PORT}" and self.port:
            with contextlib.suppress(OSError):
                agent = socket.create_connection(("127.0.0.1", self.port), 60)
                agent.settimeout(None)
                return lambda sock: relay(sock, agent)
        if match := re.fullmatch(r"exec:\((.*)\n\) 2>&1; printf '\\n%s' \$\?", service, re.DOTALL):
            return lambda sock: self._serve_command(match[1], sock)
        return None

    def run(self, command: str, stdin: IO[bytes]) -> Answer:
        """Return output and exit code of a shell command."""
        self.commands.append(command)
        for pattern, output, exit_code in self.answers:
            if re.search(pattern, command):
                return output, exit_code
        for pattern, handler in _COMMANDS.items():
            if match := re.fullmatch(pattern, command):
                return handler(self, *match.groups(), stdin=stdin)
        self.defects.append(command)
        return f"sh: {command}: not found", 127

    def _serve_command(self, command: str, sock: socket.socket) -> None:
        with sock.makefile("rb") as stdin, contextlib.suppress(OSError):
            output, exit_code = self.run(command, stdin)
            sock.sendall(f"{output}\n{exit_code}".encode())
            sock.shutdown(socket.SHUT_WR)

    def _getprop(self, command: str, stdin: IO[bytes]) -> Answer:
        names = [part.split()[1] for part in command.split(";")]
        return "".join(f"{self.properties.get(name, '')}\n" for name in names), 0

    def _user_state(self, stdin: IO[bytes]) -> Answer:
        return "RUNNING_UNLOCKED" if self.unlocked else "RUNNING_LOCKED", 0

    def _package_path(self, stdin: IO[bytes]) -> Answer:
        return ("", 1) if self.apk is None else (f"package:/data/app/{PACKAGE}/base.apk", 0)

    def _list_package(self, stdin: IO[bytes]) -> Answer:
        return ("", 0) if self.apk is None else (f"package:{PACKAGE} versionCode:{self.build}", 0)

    def _free_storage(self, stdin: IO[bytes]) -> Answer:
        """Like toybox's df."""
        total = 112 << 20
        used = total - self.free_kib
        return (
            "Filesystem      1K-blocks     Used Available Use% Mounted on\n"
            f"/dev/block/dm-48 {total} {used}   {self.free_kib}  {100 * used // total}% /data\n",
            0,
        )

    def _hash(self, stdin: IO[bytes]) -> Answer:
        return f"{hashlib.sha256(self.apk or b'').hexdigest()}  /data/app/{PACKAGE}/base.apk", 0

    def _install(self, size: str, stdin: IO[bytes]) -> Answer:
        if self.install_failure:  # like the real one, before it has read the file
            return f"Failure [{self.install_failure}]", 1
        self.apk, self.compiled = stdin.read(int(size)), False
        self.stop_app()
        return "Success", 0

    def _take_token(self, stdin: IO[bytes]) -> Answer:
        token = stdin.readline().rstrip(b"\n")
        if self.apk is None:  # like the real one, with exit code 0
            return "java.lang.IllegalStateException: Could not find provider: dev.blocktime.bench.control", 0
        if not 16 <= len(token) <= 256:
            return "java.io.IOException: a token has 16 to 256 visible ASCII characters", 0
        changed, self.token = self.token != token.decode(), token.decode()
        if changed and self.is_running:
            self._start_agent()
        return "", 0

    def _start(self, allowed: str | None, stdin: IO[bytes]) -> Answer:
        if self.apk is None:
            return "Error type 3\nError: Activity class {…/.MainActivity} does not exist.", 1
        changed, self.allowed = (
            self.allowed != tuple((allowed or "").split(",")),
            tuple((allowed or "").split(",")),
        )
        self.in_front = self.screen_on
        if self.token and (changed or not self.is_running):
            self._start_agent()
        return "Starting: Intent { cmp=dev.blocktime.bench/.MainActivity }", 0

    def _start_agent(self) -> None:
        self.runs_compiled = self.compiled if not self.is_running else self.runs_compiled
        self.app.stop()
        self.port = self.app.start({"BLOCKTIME_TOKEN": self.token, "BLOCKTIME_ALLOW": ",".join(self.allowed)})
        self.starts += 1

    def _stop(self, stdin: IO[bytes]) -> Answer:
        self.stop_app()
        return "", 0

    def _wake(self, stdin: IO[bytes]) -> Answer:
        self.screen_on = True
        return "", 0

    def _power(self, stdin: IO[bytes]) -> Answer:
        return f"Power Manager State:\n  mWakefulness={'Awake' if self.screen_on else 'Asleep'}", 0

    def _package(self, stdin: IO[bytes]) -> Answer:
        status = "[status=speed] [reason=cmdline]" if self.compiled else "[status=verify] [reason=install]"
        path = f"/data/app/~~6Vh1cU-A==/{PACKAGE}-2Zw==/base.apk"
        return f"Dexopt state:\n  [{PACKAGE}]\n    path: {path}\n      arm64: {status} [primary-abi]\n", 0

    def _compile(self, stdin: IO[bytes]) -> Answer:
        self.compiled = self.can_compile
        return ("Success", 0) if self.can_compile else ("Failure: package can't be compiled", 1)

    def _fix_performance(self, stdin: IO[bytes]) -> Answer:
        return ("", 0) if self.has_fixed_performance else ("Failed to set FIXED_PERFORMANCE mode", 255)

    def _pid(self, stdin: IO[bytes]) -> Answer:
        return (str(os.getpid()), 0) if self.is_running else ("", 1)

    def _read_log(self, stdin: IO[bytes]) -> Answer:
        return self.log, 0

    def _accept(self, stdin: IO[bytes]) -> Answer:
        return "", 0


_COMMANDS: dict[str, Callable[..., Answer]] = {
    r"(getprop [\w.]+(?:; getprop [\w.]+)*)": FakeAndroid._getprop,
    r"am get-started-user-state 0": FakeAndroid._user_state,
    rf"am start -n {PACKAGE}/\.MainActivity(?: --esa allow (\S+))?": FakeAndroid._start,
    rf"am force-stop {PACKAGE}": FakeAndroid._stop,
    rf"pm path {PACKAGE}": FakeAndroid._package_path,
    rf"cmd package list packages --user 0 --show-versioncode {PACKAGE}": FakeAndroid._list_package,
    r"df -k /data": FakeAndroid._free_storage,
    r'sha256sum "\$\(pm path .*\)"': FakeAndroid._hash,
    r"cmd package install -r -S (\d+)": FakeAndroid._install,
    rf"cmd package compile -m speed -f {PACKAGE}": FakeAndroid._compile,
    rf"dumpsys package {PACKAGE}": FakeAndroid._package,
    rf"pm grant {PACKAGE} \S+": FakeAndroid._accept,
    rf"cmd deviceidle whitelist \+{PACKAGE}": FakeAndroid._accept,
    r"cmd power set-fixed-performance-mode-enabled (?:true|false)": FakeAndroid._fix_performance,
    rf'read -r t && printf %s "\$t" \| content write --uri content://{PACKAGE}\.control/token': (
        FakeAndroid._take_token
    ),
    r"input keyevent KEYCODE_WAKEUP": FakeAndroid._wake,
    r"dumpsys power": FakeAndroid._power,
    rf"pidof {PACKAGE}": FakeAndroid._pid,
    r"logcat -d .*": FakeAndroid._read_log,
}


class FakeLink(AdbLink):
    """A link to a fake phone without an adb server between."""

    def __init__(self, phone: FakeAndroid) -> None:
        super().__init__(phone.serial)
        self.phone = phone
        self.is_closed = False

    def open_service(self, service: str) -> socket.socket:
        if self.phone.state != "device":
            raise LinkLostError("the cable was pulled", code="phone_lost")
        talk = self.phone.talk(service)
        if talk is None:
            raise ServiceRefusedError(f"refused {service}", code="service_refused")
        near, far = socket.socketpair()
        self.phone.sockets += [near, far]

        def serve() -> None:
            with near:
                talk(near)

        threading.Thread(target=serve, daemon=True).start()
        return far

    def close(self) -> None:
        self.is_closed = True


class FakeAdbServer:
    """An adb server on a free port, until closed.

    Attributes:
        phones: Those that it lists, if they are attached.
        network: Those that it can connect to, by address.
        requests: All requests to the server itself.
    """

    def __init__(self, *phones: FakeAndroid) -> None:
        self.phones = list(phones)
        self.network: dict[str, FakeAndroid] = {}
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="adb-server", daemon=True).start()

    def close(self) -> None:
        """End the server and all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for phone in self.phones:
            phone.pull_cable()
            phone.stop_app()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb", buffering=0) as requests, contextlib.suppress(OSError, ValueError):
            request = _read_block(requests)
            self.requests.append(request)
            if request.startswith(("host:tport:serial:", "host:transport:")):
                self._serve_phone(sock, requests, request.removeprefix("host:").split(":", 1)[1])
            else:
                sock.sendall(self._answer(request))

    def _answer(self, request: str) -> bytes:
        name, _, argument = request.removeprefix("host:").partition(":")
        if name == "version":
            return b"OKAY" + _block(f"{SERVER_VERSION:04x}")
        if name in ("devices", "devices-l"):
            attached = [phone for phone in self.phones if phone.state]
            return b"OKAY" + _block("".join(f"{phone.serial:22} {phone.state}\n" for phone in attached))
        if name == "connect":
            phone = self.network.get(argument)
            if phone is None or not phone.state:
                return b"OKAY" + _block(f"failed to connect to '{argument}': Connection refused")
            if phone not in self.phones:
                self.phones.append(phone)
            return b"OKAY" + _block(f"connected to {argument}")
        if name == "disconnect":
            self.phones = [phone for phone in self.phones if phone.serial != argument]
            return b"OKAY" + _block(f"disconnected {argument}")
        return b"FAIL" + _block(f"unknown host service '{name}'")

    def _serve_phone(self, sock: socket.socket, requests: io.RawIOBase, target: str) -> None:
        serial = target.removeprefix("serial:")
        phone = next((phone for phone in self.phones if phone.serial == serial and phone.state), None)
        if phone is None:
            sock.sendall(b"FAIL" + _block(f"device '{serial}' not found"))
            return
        if phone.state != "device":
            sock.sendall(b"FAIL" + _block(f"device {phone.state}"))
            return
        # `tport` answers with the transport's number, too.
        sock.sendall(b"OKAY" + (bytes(8) if target != serial else b""))
        talk = phone.talk(_read_block(requests))
        if talk is None:
            sock.sendall(b"FAIL" + _block("closed"))
            return
        phone.sockets.append(sock)
        sock.sendall(b"OKAY")
        talk(sock)


def _read_block(stream: io.RawIOBase) -> str:
    return _read(stream, int(_read(stream, 4), 16)).decode()


def _read(stream: io.RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := stream.read(size - len(data))):
        data += chunk
    return data


def _block(text: str) -> bytes:
    return f"{len(text.encode()):04x}".encode() + text.encode()
