"""The phone's adbd: whom it lets in, and the services it offers. Each connection is a `Connection`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from enum import Enum

from tests.support.fakephone.connection import Connection, Service
from tests.support.fakephone.folders import Folders
from tests.support.fakephone.keys import PublicKey
from tests.support.fakephone.packets import MAX_PAYLOAD_BYTES
from tests.support.fakephone.phone_state import PhoneState
from tests.support.fakephone.shell_service import Shell
from tests.support.fakephone.sync_service import SyncService
from tests.support.fakephone.tcp_service import bridge

FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "fixed_push_symlink_timestamp")
_CONNECT_S = 60.0


class Owner(Enum):
    """What the phone's owner does with the dialog "Allow USB debugging?"."""

    ALLOWS = "allows"
    IGNORES = "ignores"


class FakeDaemon:
    """Speaks the adb protocol as a phone's adbd does; `ports` maps the phone's ports to this machine's."""

    def __init__(
        self, state: PhoneState, folders: Folders, shell: Shell, ports: Callable[[int], int | None]
    ) -> None:
        self._state = state
        self._folders = folders
        self._shell = shell
        self._ports = ports
        self._keys: set[PublicKey] = set()
        self._owner_acts = threading.Condition()
        self._owner = Owner.ALLOWS
        self.max_payload = MAX_PAYLOAD_BYTES
        # What clients did that the protocol forbids; tests expect none.
        self.violations: list[str] = []

    @property
    def banner(self) -> bytes:
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        properties = "".join(f"{name}={self._state.properties[name]};" for name in names)
        return f"device::{properties}features={','.join(FEATURES)}".encode()

    @property
    def owner(self) -> Owner:
        return self._owner

    @owner.setter
    def owner(self, owner: Owner) -> None:
        with self._owner_acts:
            self._owner = owner
            self._owner_acts.notify_all()

    def forget_keys(self) -> None:
        """As "Revoke USB debugging authorizations" does."""
        self._keys.clear()

    def dial(self) -> socket.socket:
        """A new connection's far end."""
        near, far = socket.socketpair()
        threading.Thread(target=Connection(near, self).serve, daemon=True).start()
        return far

    def key_known(self, token: bytes, signature: bytes) -> bool:
        return any(key.signed(token, signature) for key in list(self._keys))

    def ask_owner(self, key: PublicKey, gone: threading.Event) -> bool:
        with self._owner_acts:
            self._owner_acts.wait_for(lambda: self._owner is Owner.ALLOWS or gone.is_set())
            if gone.is_set():
                return False
            self._keys.add(key)
            return True

    def violated(self, what: str) -> None:
        self.violations.append(what)

    def open_service(self, name: str) -> Service | None:
        kind, _, rest = name.partition(":")
        kind, *options = kind.split(",")
        if kind == "sync":
            return lambda stream: SyncService(stream, self._folders, lambda: self._state.free_bytes).serve()
        if kind == "tcp":
            return self._open_port(rest)
        command = self._folders.translate(rest)
        if kind == "exec" or (kind == "shell" and rest and "v2" not in options):
            return lambda stream: self._shell.run_plain(stream, command)
        if kind == "shell" and rest:
            return lambda stream: self._shell.run_v2(stream, command)
        return None

    def _open_port(self, port: str) -> Service | None:
        local = self._ports(int(port)) if port.isdecimal() else None
        if local is None:
            return None
        try:
            sock = socket.create_connection(("127.0.0.1", local), _CONNECT_S)
        except OSError:
            return None
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return lambda stream: bridge(stream, sock)
