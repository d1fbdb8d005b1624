"""lockdownd of a fake iPhone and the services that it starts: files, apps, disk images and process control.

Requests, answers and error names are those of iOS, as far as pymobiledevice3 uses them to install and start an app.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import plistlib
import socket
import ssl
import struct
import tempfile
import uuid
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from pymobiledevice3.dtx import DTXConnection, DTXService, dtx_on_invoke

if TYPE_CHECKING:
    from tests.support.fake_iphone import FakeIphone

_AMFI = "com.apple.security.mac.amfi"
_DVT = "com.apple.instruments.remoteserver.DVTSecureSocketProxy"
_SIGKILL = 9

# Apple File Conduit: operations, kinds of answer and status codes.
_AFC_MAGIC = b"CFA6LPAA"
_STATUS, _DATA, _REMOVE, _MAKE_DIR, _DEVICE_INFO = 1, 2, 8, 9, 11
_OPEN, _OPENED, _WRITE, _CLOSE = 13, 14, 16, 20
_SUCCESS, _NOT_FOUND, _UNSUPPORTED, _NO_SPACE = 0, 8, 15, 18


class RefusedError(Exception):
    """lockdownd answers with this error's name."""


class LockdownSession:
    """One connection to lockdownd."""

    def __init__(self, phone: FakeIphone, sock: socket.socket) -> None:
        self._phone = phone
        self._sock = sock
        self._host: dict[str, Any] | None = None

    def serve(self) -> None:
        """Answer until the client leaves."""
        with contextlib.suppress(OSError):
            while True:
                request = read_plist(self._sock)
                send_plist(self._sock, self._answer(request))
                if request["Request"] == "StartSession" and self._host is not None:
                    self._sock = server_context(self._host).wrap_socket(self._sock, server_side=True)
                elif request["Request"] == "StopSession" and isinstance(self._sock, ssl.SSLSocket):
                    self._sock = self._sock.unwrap()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("Request"))
        handlers = {
            "QueryType": lambda _: {"Type": "com.apple.mobile.lockdown"},
            "GetValue": self._get_value,
            "Pair": self._pair,
            "StartSession": self._start_session,
            "StopSession": self._stop_session,
            "StartService": self._start_service,
        }
        try:
            return {"Request": name, "Result": "Success", **handlers[name](request)}
        except RefusedError as refused:
            return {"Request": name, "Result": "Failure", "Error": str(refused)}

    def _get_value(self, request: dict[str, Any]) -> dict[str, Any]:
        key = request.get("Key")
        values = self._phone.values(trusted=self._host is not None)
        if request.get("Domain") == _AMFI:
            values = {"DeveloperModeStatus": self._phone.developer_mode} if self._phone.major() >= 16 else {}
        echo: dict[str, Any] = {name: request[name] for name in ("Domain", "Key") if name in request}
        if key is None:
            return {**echo, "Value": values}
        if key not in values:
            raise RefusedError("MissingValue")
        return {**echo, "Value": values[key]}

    def _pair(self, request: dict[str, Any]) -> dict[str, Any]:
        phone, record = self._phone, request["PairRecord"]
        if phone.owner == "locked":
            raise RefusedError("PasswordProtected")
        if phone.owner == "away" or phone.trusts_after:
            phone.trusts_after -= 1
            raise RefusedError("PairingDialogResponsePending")
        if phone.owner == "denies":
            raise RefusedError("UserDeniedPairing")
        _check_chain(record)
        phone.hosts[record["HostID"]] = dict(record)
        return {"EscrowBag": bytes(32)}

    def _start_session(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["HostID"] not in self._phone.hosts:
            raise RefusedError("InvalidHostID")
        if self._phone.locked:
            raise RefusedError("PasswordProtected")
        self._host = self._phone.hosts[request["HostID"]]
        return {"SessionID": str(uuid.uuid4()).upper(), "EnableSessionSSL": True}

    def _stop_session(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._host = None
        return {}

    def _start_service(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["Service"]
        if (
            self._host is None
            or name not in _SERVICES
            or name in self._phone.missing_services
            or (name == _DVT and not self._may_debug())
        ):
            raise RefusedError("InvalidService")
        port = self._phone.open_service(_SERVICES[name], server_context(self._host))
        return {"Service": name, "Port": port, "EnableServiceSSL": True}

    def _may_debug(self) -> bool:
        """Apps are started through lockdownd up to iOS 16, with the disk image; later through a tunnel."""
        phone = self._phone
        return phone.major() <= 16 and phone.developer_image and (phone.developer_mode or phone.major() < 16)


def server_context(host: dict[str, Any]) -> ssl.SSLContext:
    """Return TLS as a paired phone speaks it: with the certificate that the host made, to that host alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # names in these certificates are empty
    context.load_verify_locations(cadata=(host["HostCertificate"] + b"\n" + host["RootCertificate"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "device.pem"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key = _device_key().private_bytes(encoding, form, serialization.NoEncryption())
        chain.write_bytes(host["DeviceCertificate"] + b"\n" + key)
        context.load_cert_chain(chain)
    return context


def _check_chain(record: dict[str, Any]) -> None:
    """Check that the device certificate holds the phone's own key, and that the root has signed both leaves."""
    try:
        root, device, host = (
            x509.load_pem_x509_certificate(record[f"{name}Certificate"])
            for name in ("Root", "Device", "Host")
        )
        key: Any = root.public_key()
        for leaf in (device, host):
            key.verify(leaf.signature, leaf.tbs_certificate_bytes, PKCS1v15(), leaf.signature_hash_algorithm)
    except (ValueError, TypeError, KeyError, InvalidSignature):
        raise RefusedError("InvalidPairRecord") from None
    if device.public_key() != _device_key().public_key():
        raise RefusedError("InvalidPairRecord")


@cache
def _device_key() -> rsa.RSAPrivateKey:
    """Return the key of all fake phones; making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_key_pem() -> bytes:
    """Return the phone's public key as lockdownd reports it."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
    return _device_key().public_key().public_bytes(encoding, form)


def _serve_afc(phone: FakeIphone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Serve files: 40-byte little-endian headers (magic, whole length, this length, number, operation)."""
    handles: dict[int, str] = {}
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            _, whole, _, number, operation = struct.unpack("<8sQQQQ", receive(secured, 40))
            status, kind, body = _file_operation(phone, handles, operation, receive(secured, whole - 40))
            if kind == _STATUS:
                body = struct.pack("<Q", status)
            size = 40 + len(body)
            secured.sendall(struct.pack("<8sQQQQ", _AFC_MAGIC, size, size, number, kind) + body)


def _file_operation(
    phone: FakeIphone, handles: dict[int, str], operation: int, body: bytes
) -> tuple[int, int, bytes]:
    """Return status, kind of answer and its body."""
    if operation == _DEVICE_INFO:
        info = {"Model": phone.product_type, "FSTotalBytes": 128 << 30, "FSFreeBytes": phone.media_bytes}
        return _SUCCESS, _DATA, "".join(f"{key}\0{value}\0" for key, value in info.items()).encode()
    if operation == _REMOVE:
        removed = phone.media.pop(_text(body), None)
        return (_NOT_FOUND if removed is None else _SUCCESS), _STATUS, b""
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
    return (_SUCCESS if operation in (_MAKE_DIR, _CLOSE) else _UNSUPPORTED), _STATUS, b""


def _text(body: bytes) -> str:
    return body.split(b"\0", 1)[0].decode()


def _serve_installation_proxy(phone: FakeIphone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Serve the list of apps, and installation."""
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            request = read_plist(secured)
            if request["Command"] in ("Install", "Upgrade"):
                _install(phone, request["PackagePath"], secured)
            else:
                send_plist(secured, {"Status": "Complete", "LookupResult": phone.apps})


def _install(phone: FakeIphone, path: str, sock: socket.socket) -> None:
    send_plist(sock, {"Status": "VerifyingApplication", "PercentComplete": 40})
    if phone.refuses_apps:
        description = "Failed to verify code signature: the profile does not hold this device"
        send_plist(sock, {"Error": phone.refuses_apps, "ErrorDescription": description})
        return
    package = phone.media.get(path) or phone.media["/" + path]
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        (name,) = [n for n in archive.namelist() if n.count("/") == 2 and n.endswith(".app/Info.plist")]
        info = plistlib.loads(archive.read(name))
    phone.apps[info["CFBundleIdentifier"]] = {"ApplicationType": "User", **info}
    send_plist(sock, {"Status": "Complete"})


def _serve_image_mounter(phone: FakeIphone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Take the developer disk image of iOS 16 and earlier; later ones need Apple's ticket server."""
    uploaded = b""
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            request = read_plist(secured)
            command = request["Command"]
            if command == "LookupImage":
                send_plist(secured, {"Status": "Complete", "ImagePresent": phone.developer_image})
            elif command == "CopyDevices":
                images = [{"DiskImageType": "Developer"}] if phone.developer_image else []
                send_plist(secured, {"Status": "Complete", "EntryList": images})
            elif command == "ReceiveBytes":
                send_plist(secured, {"Status": "ReceiveBytesAck"})
                receive(secured, request["ImageSize"])
                uploaded = request["ImageSignature"]
                send_plist(secured, {"Status": "Complete"})
            else:
                phone.developer_image = command == "MountImage" and request["ImageSignature"] == uploaded
                send_plist(secured, {"Status": "Complete"})


def serve_instruments(phone: FakeIphone, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Serve process control by pymobiledevice3's own codec; `tls` is None in a tunnel."""
    with contextlib.suppress(OSError):
        asyncio.run(_talk_dtx(phone, sock, tls))


async def _talk_dtx(phone: FakeIphone, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
    connection = DTXConnection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    connection.register_service(_process_control(phone))
    await connection.connect()
    await connection.wait_disconnected()


def _process_control(phone: FakeIphone) -> type[DTXService]:
    class ProcessControl(DTXService):
        IDENTIFIER = "com.apple.instruments.server.services.processcontrol"

        @dtx_on_invoke("launchSuspendedProcessWithDevicePath:bundleIdentifier:environment:arguments:options:")
        async def launch(
            self,
            path: str,
            bundle: str,
            environment: dict[str, str],
            arguments: list[str],
            options: dict[str, Any],
        ) -> int:
            phone.launched.append(bundle)
            start = phone.launch if options["KillExisting"] else phone.show
            return await asyncio.to_thread(start, environment)

        @dtx_on_invoke("sendSignal:toPid:")
        async def send_signal(self, number: int, pid: int) -> None:
            if number == _SIGKILL and pid == phone.pid:
                await asyncio.to_thread(phone.quit_app)

    return ProcessControl


_SERVICES = {
    "com.apple.afc": _serve_afc,
    "com.apple.mobile.installation_proxy": _serve_installation_proxy,
    "com.apple.mobile.mobile_image_mounter": _serve_image_mounter,
    _DVT: serve_instruments,
}


def receive(sock: socket.socket, size_bytes: int) -> bytes:
    """Return exactly `size_bytes`; raises ConnectionError if the peer closes before."""
    data = bytearray()
    while len(data) < size_bytes:
        chunk = sock.recv(size_bytes - len(data))
        if not chunk:
            raise ConnectionError("the peer closed")
        data += chunk
    return bytes(data)


def read_plist(sock: socket.socket) -> dict[str, Any]:
    """Read a request to lockdownd or one of its services."""
    (length,) = struct.unpack(">I", receive(sock, 4))
    return plistlib.loads(receive(sock, length))


def send_plist(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send an answer of lockdownd or one of its services."""
    body = plistlib.dumps(message)
    sock.sendall(struct.pack(">I", len(body)) + body)
