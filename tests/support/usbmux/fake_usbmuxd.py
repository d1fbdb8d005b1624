"""usbmuxd on a UNIX socket, plist protocol version 1: what libusbmuxd and pymobiledevice3 ask of it.

Message names, numbers and the order of answers are those of libimobiledevice's usbmuxd (client.c).
"""

from __future__ import annotations

import contextlib
import plistlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.usbmux.fake_phone import FakePhone
from tests.support.usbmux.plists import read_mux, send_mux

OK, BAD_COMMAND, BAD_DEVICE, REFUSED, NO_RECORD = 0, 1, 2, 3, 2
BUID = "30142955-444094379208051516"


@dataclass
class _Attachment:
    """A phone as long as its cable is plugged in, with one end of all its connections."""

    device_id: int
    phone: FakePhone
    kind: Literal["USB", "Network"]
    connections: list[socket.socket] = field(default_factory=list)

    def message(self) -> dict[str, Any]:
        properties = {
            "ConnectionSpeed": 480000000,
            "ConnectionType": self.kind,
            "DeviceID": self.device_id,
            "LocationID": 0x14100000,
            "ProductID": 0x12A8,
            "SerialNumber": self.phone.udid,
        }
        return {"MessageType": "Attached", "DeviceID": self.device_id, "Properties": properties}


class FakeUsbmuxd:
    """Serves until closed; `plug_in` and `unplug` are the cable. As a daemon does, it keeps pair records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pair_records: dict[str, bytes] = {}
        self._attached: dict[int, _Attachment] = {}
        self._listeners: list[socket.socket] = []
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
        """Ends the daemon, and with it all connections."""
        _close(self._listener)
        for attachment in list(self._attached.values()):
            self.unplug(attachment.phone)
        with self._lock:
            for sock in self._clients:
                _end(sock)

    def plug_in(self, phone: FakePhone, kind: Literal["USB", "Network"] = "USB") -> None:
        """Attaches a phone; it gets a new number each time."""
        with self._lock:
            attachment = _Attachment(self._next_id, phone, kind)
            self._next_id += 1
            self._attached[attachment.device_id] = attachment
            self._tell(attachment.message())

    def unplug(self, phone: FakePhone) -> None:
        """Pulls a phone's cable: all its connections end, and listeners are told."""
        with self._lock:
            attachment = next(a for a in self._attached.values() if a.phone is phone)
            del self._attached[attachment.device_id]
            self._tell({"MessageType": "Detached", "DeviceID": attachment.device_id})
        for sock in attachment.connections:
            _end(sock)

    def record(self, phone: FakePhone) -> dict[str, Any] | None:
        """The pair record kept for a phone."""
        data = self.pair_records.get(phone.udid)
        return None if data is None else plistlib.loads(data)

    def _tell(self, message: dict[str, Any]) -> None:
        for sock in list(self._listeners):
            try:
                send_mux(sock, 0, message)
            except OSError:
                self._listeners.remove(sock)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), name="usbmuxd-client", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        """Answers one client. TLS takes `sock` over, so that a second hold on the connection is what ends it."""
        hold = sock.dup()
        with self._lock:
            self._clients.append(hold)
        try:
            with sock, contextlib.suppress(OSError):
                while not self._answered_last(sock, hold):
                    pass
        finally:
            with self._lock:
                self._clients.remove(hold)
            _close(hold)

    def _answered_last(self, sock: socket.socket, hold: socket.socket) -> bool:
        tag, message = read_mux(sock)
        if message["MessageType"] == "Connect":
            return self._connect(sock, hold, tag, message)
        if message["MessageType"] == "Listen":
            self._listen(sock, tag)
        else:
            send_mux(sock, tag, self._answer(message))
        return False

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["MessageType"]:
            case "ListDevices":
                with self._lock:
                    return {"DeviceList": [a.message() for a in self._attached.values()]}
            case "ReadBUID":
                return {"BUID": BUID}
            case "ReadPairRecord":
                data = self.pair_records.get(message["PairRecordID"])
                return _result(NO_RECORD) if data is None else {"PairRecordData": data}
            case "SavePairRecord":
                self.pair_records[message["PairRecordID"]] = message["PairRecordData"]
                with self._lock:
                    self._tell({"MessageType": "Paired", "DeviceID": message.get("DeviceID", 0)})
                return _result(OK)
            case "DeletePairRecord":
                found = self.pair_records.pop(message["PairRecordID"], None)
                return _result(NO_RECORD if found is None else OK)
            case _:
                return _result(BAD_COMMAND)

    def _listen(self, sock: socket.socket, tag: int) -> None:
        with self._lock:
            send_mux(sock, tag, _result(OK))
            for attachment in self._attached.values():
                send_mux(sock, 0, attachment.message())
            self._listeners.append(sock)

    def _connect(self, sock: socket.socket, hold: socket.socket, tag: int, message: dict[str, Any]) -> bool:
        """Connects a client to a port of a phone, until either ends it; False where that is refused.

        PortNumber has the two bytes of the port in network order, read as a number of this machine.
        """
        port = socket.ntohs(message["PortNumber"])
        with self._lock:
            attachment = self._attached.get(message["DeviceID"])
            if attachment is not None:
                attachment.connections.append(hold)
        if attachment is None:
            send_mux(sock, tag, _result(BAD_DEVICE))
            return False
        talk = attachment.phone.dial(port)
        if talk is None:
            send_mux(sock, tag, _result(REFUSED))
            return False
        send_mux(sock, tag, _result(OK))
        talk(sock)
        return True


def _result(number: int) -> dict[str, Any]:
    return {"MessageType": "Result", "Number": number}


def _end(sock: socket.socket) -> None:
    """Ends a connection for every holder of it, threads that wait in it included."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _close(sock: socket.socket) -> None:
    _end(sock)
    sock.close()
