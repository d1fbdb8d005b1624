"""iPhones that usbmuxd lists, and the product type that each one tells.

usbmuxd: 16-byte little-endian header (length, version 1, type 8 = plist, tag), then an XML plist.
lockdownd (port 62078 of the phone): u32 big-endian length, then an XML plist. It tells its product type unpaired.
"""

from __future__ import annotations

import plistlib
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from orchestrator.wire.sockets import SocketSource

USBMUXD_SOCKET = Path("/var/run/usbmuxd")

_LOCKDOWN_PORT = 62078
_TIMEOUT_S = 5.0
_MAX_PLIST_BYTES = 1 << 20


@dataclass(frozen=True)
class UsbmuxDevice:
    """An attached iPhone; `product_type` is empty where it did not tell (locked since its start, for example)."""

    udid: str
    product_type: str


def list_usbmux(path: Path = USBMUXD_SOCKET) -> list[UsbmuxDevice]:
    """iPhones attached by USB. OSError where the daemon can't be reached, ValueError where it talks nonsense."""
    with _connect(path) as sock:
        reply = _ask_mux(sock, {"MessageType": "ListDevices"})
    devices = []
    for entry in reply.get("DeviceList", []):
        properties = entry["Properties"]
        if properties.get("ConnectionType") == "USB":
            device_id = int(entry["DeviceID"])
            devices.append(UsbmuxDevice(str(properties["SerialNumber"]), _product_type(path, device_id)))
    return devices


def _product_type(path: Path, device_id: int) -> str:
    try:
        with _connect(path) as sock:
            port = socket.htons(_LOCKDOWN_PORT)
            answer = _ask_mux(sock, {"MessageType": "Connect", "DeviceID": device_id, "PortNumber": port})
            if answer.get("Number") != 0:
                return ""
            body = plistlib.dumps({"Label": "blocktime", "Request": "GetValue", "Key": "ProductType"})
            sock.sendall(struct.pack(">I", len(body)) + body)
            (length,) = struct.unpack(">I", _receive(sock, 4))
            return str(_plist(sock, length).get("Value", ""))[:64]
    except (OSError, ValueError):
        return ""


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(_TIMEOUT_S)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _ask_mux(sock: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
    body = plistlib.dumps({"ClientVersionString": "blocktime", "ProgName": "blocktime", **message})
    sock.sendall(struct.pack("<IIII", 16 + len(body), 1, 8, 1) + body)
    (length, _, _, _) = struct.unpack("<IIII", _receive(sock, 16))
    return _plist(sock, length - 16)


def _plist(sock: socket.socket, length: int) -> dict[str, Any]:
    if not 0 < length <= _MAX_PLIST_BYTES:
        raise ValueError(f"a message of {length} bytes")
    try:
        message = plistlib.loads(_receive(sock, length), fmt=plistlib.FMT_XML)
    except ExpatError as error:
        raise ValueError(f"no property list: {error}") from None
    if not isinstance(message, dict):
        raise ValueError("a message that is no dictionary")
    return message


def _receive(sock: socket.socket, size_bytes: int) -> bytes:
    data = SocketSource(sock).read(size_bytes)
    if len(data) < size_bytes:
        raise ValueError("a message that ends early")
    return data
