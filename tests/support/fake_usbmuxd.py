"""usbmuxd on a UNIX socket, plist protocol version 1, as far as pymobiledevice3 uses it.

Message names and numbers are those of libimobiledevice's usbmuxd (client.c).
"""

from __future__ import annotations

import contextlib
import plistlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.fake_iphone import FakeIphone
from tests.support.fake_lockdown import receive

_OK, _BAD_DEVICE, _REFUSED, _NO_RECORD = 0, 2, 3, 2
_BUID = "30142955-444094379208051516"
_PLIST_MESSAGE = 8


@dataclass
class _Attachment:
    """A phone while its cable is plugged in, with one end of all its connections."""

    device_id: int
    phone: FakeIphone
    kind: Literal["USB", "Network"]
    connections: list[socket.socket] = field(default_factory=list)

    def message(self) -> dict[str, Any]:
        properties = {
            "ConnectionType": self.kind,
            "DeviceID": self.device_id,
            "LocationID": 0x14100000,
            "ProductID": 0x12A8,
            "SerialNumber": self.phone.udid,
        }
        return {"MessageType": "Attached", "DeviceID": self.device_id, "Properties": properties}


class FakeUsbmuxd:
    """Serves until closed; `plug_in` and `unplug` are the cable. Like the real daemon it stores pair records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pair_records: dict[str, bytes] = {}
        self._attached: dict[int, _Attachment] = {}
        self._clients: list[socket.socket] = []
        self._next_id = 1
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, name="usbmuxd", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the daemon and all connections."""
        _end(self._listener)
        self._listener.close()
        for attachment in list(self._attached.values()):
            self.unplug(attachment.phone)
        with self._lock:
            for sock in self._clients:
                _end(sock)

    def plug_in(self, phone: FakeIphone, kind: Literal["USB", "Network"] = "USB") -> None:
        """Attach a phone, under a new number each time."""
        with self._lock:
            self._attached[self._next_id] = _Attachment(self._next_id, phone, kind)
            self._next_id += 1

    def unplug(self, phone: FakeIphone) -> None:
        """Pull a phone's cable, which ends all its connections."""
        with self._lock:
            attachment = next(a for a in self._attached.values() if a.phone is phone)
            del self._attached[attachment.device_id]
        for sock in attachment.connections:
            _end(sock)

    def record(self, phone: FakeIphone) -> dict[str, Any] | None:
        """Return the pair record stored for a phone."""
        data = self.pair_records.get(phone.udid)
        return None if data is None else plistlib.loads(data)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), name="usbmuxd-client", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        """Answer one client. TLS takes `sock` over, so a duplicate of it is what ends the connection."""
        duplicate = sock.dup()
        with self._lock:
            self._clients.append(duplicate)
        try:
            with sock, contextlib.suppress(OSError):
                connected = False
                while not connected:
                    tag, message = _read_message(sock)
                    if message["MessageType"] == "Connect":
                        connected = self._connect(sock, duplicate, tag, message)
                    else:
                        _send_message(sock, tag, self._answer(message))
        finally:
            with self._lock:
                self._clients.remove(duplicate)
            _end(duplicate)
            duplicate.close()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["MessageType"]:
            case "ListDevices":
                with self._lock:
                    return {"DeviceList": [a.message() for a in self._attached.values()]}
            case "ReadBUID":
                return {"BUID": _BUID}
            case "ReadPairRecord":
                data = self.pair_records.get(message["PairRecordID"])
                return _result(_NO_RECORD) if data is None else {"PairRecordData": data}
            case "SavePairRecord":
                self.pair_records[message["PairRecordID"]] = message["PairRecordData"]
                return _result(_OK)
        raise ConnectionError(f"unknown message {message['MessageType']}")

    def _connect(
        self, sock: socket.socket, duplicate: socket.socket, tag: int, message: dict[str, Any]
    ) -> bool:
        """Connect a client to a port of a phone until either ends it; return False if that is refused."""
        with self._lock:
            attachment = self._attached.get(message["DeviceID"])
            if attachment is not None:
                attachment.connections.append(duplicate)
        # PortNumber has the two bytes of the port in network order, read as a number of this computer.
        talk = attachment.phone.dial(socket.ntohs(message["PortNumber"])) if attachment else None
        if talk is None:
            _send_message(sock, tag, _result(_REFUSED if attachment else _BAD_DEVICE))
            return False
        _send_message(sock, tag, _result(_OK))
        talk(sock)
        return True


def _read_message(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the tag and the plist of a request."""
    length, version, kind, tag = struct.unpack("<IIII", receive(sock, 16))
    if (version, kind) != (1, _PLIST_MESSAGE):
        raise ConnectionError("not the plist protocol")
    return tag, plistlib.loads(receive(sock, length - 16))


def _send_message(sock: socket.socket, tag: int, message: dict[str, Any]) -> None:
    body = plistlib.dumps(message)
    sock.sendall(struct.pack("<IIII", 16 + len(body), 1, _PLIST_MESSAGE, tag) + body)


def _result(number: int) -> dict[str, Any]:
    return {"MessageType": "Result", "Number": number}


def _end(sock: socket.socket) -> None:
    """End a connection for every holder of it, including threads that wait in it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
