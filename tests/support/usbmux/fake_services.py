"""AFC and installation_proxy of a fake phone, as far as an installation and a look at the apps use them."""

from __future__ import annotations

import contextlib
import io
import plistlib
import socket
import ssl
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from tests.support.usbmux.plists import read_service, receive, send_service

if TYPE_CHECKING:
    from tests.support.usbmux.fake_phone import FakePhone

_MAGIC = b"CFA6LPAA"
_STATUS, _DATA, _REMOVE, _MAKE_DIR, _DEVICE_INFO, _INFO = 1, 2, 8, 9, 11, 10
_OPEN, _OPENED, _WRITE, _CLOSE = 13, 14, 16, 20
_SUCCESS, _NOT_FOUND, _UNSUPPORTED, _NO_SPACE = 0, 8, 15, 18

_MAX_PACKET_BYTES = 1 << 30

_STAGES = (
    ("CreatingStagingDirectory", 5),
    ("ExtractingPackage", 15),
    ("InspectingPackage", 20),
    ("VerifyingApplication", 40),
    ("InstallingApplication", 60),
    ("GeneratingApplicationMap", 90),
)


def serve_afc(phone: FakePhone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Apple File Conduit: 40-byte little-endian headers (magic, whole length, this length, number, operation)."""
    handles: dict[int, str] = {}
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            magic, whole, _, number, operation = struct.unpack("<8sQQQQ", receive(secured, 40))
            if magic != _MAGIC or not 40 <= whole <= _MAX_PACKET_BYTES:
                return
            status, kind, body = _file_operation(phone, handles, operation, receive(secured, whole - 40))
            if kind == _STATUS:
                body = struct.pack("<Q", status)
            secured.sendall(
                struct.pack("<8sQQQQ", _MAGIC, 40 + len(body), 40 + len(body), number, kind) + body
            )


def _file_operation(
    phone: FakePhone, handles: dict[int, str], operation: int, body: bytes
) -> tuple[int, int, bytes]:
    """Status, kind of answer and its body."""
    if operation == _MAKE_DIR:
        return _SUCCESS, _STATUS, b""
    if operation == _DEVICE_INFO:
        facts = {"Model": phone.product_type, "FSTotalBytes": str(phone.media_bytes)}
        return _SUCCESS, _DATA, b"".join(f"{key}\0{value}\0".encode() for key, value in facts.items())
    if operation == _REMOVE:
        found = phone.media.pop(_text(body), None)
        return (_NOT_FOUND if found is None else _SUCCESS), _STATUS, b""
    if operation == _INFO:
        if _text(body) not in phone.media:
            return _NOT_FOUND, _STATUS, b""
        size = len(phone.media[_text(body)])
        return _SUCCESS, _DATA, f"st_size\0{size}\0st_ifmt\0S_IFREG\0".encode()
    if operation == _OPEN:
        handle, path = len(handles) + 1, _text(body[8:])
        handles[handle] = path
        phone.media[path] = bytearray()
        return _SUCCESS, _OPENED, struct.pack("<Q", handle)
    if operation == _WRITE:
        (handle,) = struct.unpack("<Q", body[:8])
        if sum(map(len, phone.media.values())) + len(body) - 8 > phone.media_bytes:
            return _NO_SPACE, _STATUS, b""
        phone.media[handles[handle]] += body[8:]
        return _SUCCESS, _STATUS, b""
    if operation == _CLOSE:
        handles.pop(struct.unpack("<Q", body[:8])[0])
        return _SUCCESS, _STATUS, b""
    return _UNSUPPORTED, _STATUS, b""


def _text(body: bytes) -> str:
    return body.split(b"\0", 1)[0].decode()


def serve_installation_proxy(phone: FakePhone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Look-ups, the list of apps, and installation with its stages."""
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            request = read_service(secured)
            options = request.get("ClientOptions", {})
            if request["Command"] == "Lookup":
                send_service(secured, {"Status": "Complete", "LookupResult": _chosen(phone, options)})
            elif request["Command"] == "Browse":
                _browse(phone, options, secured)
            elif request["Command"] in ("Install", "Upgrade"):
                _install(phone, request["PackagePath"], secured)
            else:
                send_service(secured, {"Error": "UnknownCommand"})


def _chosen(phone: FakePhone, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    wanted = options.get("BundleIDs", list(phone.apps))
    kind = options.get("ApplicationType", "Any")
    return {
        bundle: app
        for bundle, app in phone.apps.items()
        if bundle in wanted and kind in ("Any", app["ApplicationType"])
    }


def _browse(phone: FakePhone, options: dict[str, Any], sock: socket.socket) -> None:
    apps = list(_chosen(phone, options).values())
    listing = {"CurrentIndex": 0, "CurrentAmount": len(apps), "Total": len(apps), "CurrentList": apps}
    send_service(sock, {"Status": "BrowsingApplications", **listing})
    send_service(sock, {"Status": "Complete"})


def _install(phone: FakePhone, path: str, sock: socket.socket) -> None:
    package = phone.media.get(path) or phone.media.get("/" + path)
    if package is None:
        send_service(sock, {"Error": "PackageInspectionFailed", "ErrorDescription": "no such package"})
        return
    for stage, percent in _STAGES:
        send_service(sock, {"Status": stage, "PercentComplete": percent})
        if stage == "VerifyingApplication" and phone.refuses_apps:
            description = "Failed to verify code signature: the profile does not hold this device"
            send_service(sock, {"Error": phone.refuses_apps, "ErrorDescription": description})
            return
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        (name,) = [n for n in archive.namelist() if n.count("/") == 2 and n.endswith(".app/Info.plist")]
        info = plistlib.loads(archive.read(name))
    phone.apps[info["CFBundleIdentifier"]] = {"ApplicationType": "User", **info}
    send_service(sock, {"Status": "Complete"})
