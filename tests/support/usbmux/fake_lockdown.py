"""lockdownd: values, pairing, sessions over TLS, and the services that it starts.

Requests, answers and error names are those of iOS, as libimobiledevice's lockdown.c and pymobiledevice3 read them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from tests.support.usbmux.device_key import device_key, private_key_pem
from tests.support.usbmux.fake_dvt import serve_dvt
from tests.support.usbmux.fake_image_mounter import serve_image_mounter
from tests.support.usbmux.fake_services import serve_afc, serve_installation_proxy
from tests.support.usbmux.plists import read_service, send_service

if TYPE_CHECKING:
    from tests.support.usbmux.fake_phone import FakePhone

AMFI = "com.apple.security.mac.amfi"
DVT = "com.apple.instruments.remoteserver.DVTSecureSocketProxy"
SERVICES = {
    "com.apple.afc": serve_afc,
    "com.apple.mobile.installation_proxy": serve_installation_proxy,
    "com.apple.mobile.mobile_image_mounter": serve_image_mounter,
    DVT: serve_dvt,
}


class Refused(Exception):
    """lockdownd answers with this error's name."""


class LockdownSession:
    """One connection to lockdownd."""

    def __init__(self, phone: FakePhone, sock: socket.socket) -> None:
        self._phone = phone
        self._sock = sock
        self._host: dict[str, Any] | None = None
        self._session = ""

    def serve(self) -> None:
        """Answers until the client leaves."""
        with contextlib.suppress(OSError):
            while True:
                request = read_service(self._sock)
                send_service(self._sock, self._answer(request))
                if request["Request"] == "StartSession" and self._host is not None:
                    self._sock = server_context(self._host).wrap_socket(self._sock, server_side=True)
                elif request["Request"] == "StopSession" and isinstance(self._sock, ssl.SSLSocket):
                    self._sock = self._sock.unwrap()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("Request"))
        handler = {
            "QueryType": self._query_type,
            "GetValue": self._get_value,
            "Pair": self._pair,
            "ValidatePair": self._validate_pair,
            "Unpair": self._unpair,
            "StartSession": self._start_session,
            "StopSession": self._stop_session,
            "StartService": self._start_service,
        }.get(name)
        try:
            if handler is None:
                raise Refused("InvalidRequest")
            return {"Request": name, "Result": "Success", **handler(request)}
        except Refused as refused:
            return {"Request": name, "Result": "Failure", "Error": str(refused)}

    def _query_type(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Type": "com.apple.mobile.lockdown"}

    def _get_value(self, request: dict[str, Any]) -> dict[str, Any]:
        domain, key = request.get("Domain"), request.get("Key")
        values = self._phone.values(trusted=bool(self._session))
        if domain:
            if not self._session:
                raise Refused("GetProhibited")
            known = domain == AMFI and self._phone.major() >= 16
            values = {"DeveloperModeStatus": self._phone.developer_mode} if known else {}
        echo: dict[str, Any] = {name: request[name] for name in ("Domain", "Key") if name in request}
        if key is None:
            return {**echo, "Value": values}
        if key not in values:
            raise Refused("MissingValue")
        return {**echo, "Value": values[key]}

    def _pair(self, request: dict[str, Any]) -> dict[str, Any]:
        phone, record = self._phone, request["PairRecord"]
        if phone.owner == "locked":
            raise Refused("PasswordProtected")
        if phone.owner == "away":
            raise Refused("PairingDialogResponsePending")
        if phone.trusts_after:
            phone.trusts_after -= 1
            raise Refused("PairingDialogResponsePending")
        if phone.owner == "denies":
            raise Refused("UserDeniedPairing")
        _check_chain(record)
        phone.hosts[record["HostID"]] = dict(record)
        return {"EscrowBag": bytes(32)}

    def _validate_pair(self, request: dict[str, Any]) -> dict[str, Any]:
        self._known_host(request["PairRecord"]["HostID"])
        return {}

    def _unpair(self, request: dict[str, Any]) -> dict[str, Any]:
        self._known_host(request["PairRecord"]["HostID"])
        del self._phone.hosts[request["PairRecord"]["HostID"]]
        return {}

    def _known_host(self, host_id: str) -> dict[str, Any]:
        if host_id not in self._phone.hosts:
            raise Refused("InvalidHostID")
        return self._phone.hosts[host_id]

    def _start_session(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._session:
            raise Refused("SessionActive")
        host = self._known_host(request["HostID"])
        if self._phone.locked:
            raise Refused("PasswordProtected")
        self._host, self._session = host, str(uuid.uuid4()).upper()
        return {"SessionID": self._session, "EnableSessionSSL": True}

    def _stop_session(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("SessionID") != self._session:
            raise Refused("SessionInactive")
        self._host, self._session = None, ""
        return {}

    def _start_service(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._host is None:
            raise Refused("SessionInactive")
        name = request["Service"]
        if name not in SERVICES or (name == DVT and not self._may_debug()):
            raise Refused("InvalidService")
        port = self._phone.open_service(SERVICES[name], server_context(self._host))
        return {"Service": name, "Port": port, "EnableServiceSSL": True}

    def _may_debug(self) -> bool:
        """Apps are started through lockdownd up to iOS 16, later through a tunnel; always with the image alone."""
        phone = self._phone
        return (
            (phone.major() <= 16 or phone.tunnelled)
            and phone.developer_image
            and (phone.developer_mode or phone.major() < 16)
        )


def server_context(host: dict[str, Any]) -> ssl.SSLContext:
    """TLS as a paired phone speaks it: with the certificate that the host made for it, to that host alone.

    Names in these certificates are empty, so that no chain is told: the host's own certificate, which
    pymobiledevice3 presents, and its root, which libimobiledevice presents, are both accepted as they are.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=(host["HostCertificate"] + b"\n" + host["RootCertificate"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "device.pem"
        chain.write_bytes(host["DeviceCertificate"] + b"\n" + private_key_pem())
        context.load_cert_chain(chain)
    return context


def _check_chain(record: dict[str, Any]) -> None:
    """The device certificate must hold the phone's own key, and the root must have signed both leaves."""
    try:
        root, device, host = (
            _certificate(record[f"{name}Certificate"]) for name in ("Root", "Device", "Host")
        )
        key: Any = root.public_key()
        for leaf in (device, host):
            key.verify(leaf.signature, leaf.tbs_certificate_bytes, PKCS1v15(), leaf.signature_hash_algorithm)
    except (ValueError, TypeError, KeyError, InvalidSignature):
        raise Refused("InvalidPairRecord") from None
    if device.public_key() != device_key().public_key():
        raise Refused("InvalidPairRecord")


def _certificate(pem: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libimobiledevice numbers its certificates 0
        return x509.load_pem_x509_certificate(pem)
