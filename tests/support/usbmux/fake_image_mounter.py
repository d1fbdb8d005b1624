"""mobile_image_mounter of a fake phone: takes the developer disk image of iOS 16 and earlier.

The personalised one of later versions needs Apple's ticket server, which tests do not ask.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from tests.support.usbmux.plists import read_service, receive, send_service

if TYPE_CHECKING:
    from tests.support.usbmux.fake_phone import FakePhone


def serve_image_mounter(phone: FakePhone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Look-ups, the upload and the mounting of one image, with the signature that came with it."""
    uploaded = b""
    with contextlib.suppress(OSError), tls.wrap_socket(sock, server_side=True) as secured:
        while True:
            request = read_service(secured)
            command = request["Command"]
            if command == "LookupImage":
                send_service(secured, {"Status": "Complete", "ImagePresent": phone.developer_image})
            elif command == "CopyDevices":
                images = [{"DiskImageType": "Developer"}] if phone.developer_image else []
                send_service(secured, {"Status": "Complete", "EntryList": images})
            elif command == "ReceiveBytes":
                send_service(secured, {"Status": "ReceiveBytesAck"})
                receive(secured, request["ImageSize"])
                uploaded = request["ImageSignature"]
                send_service(secured, {"Status": "Complete"})
            elif command == "MountImage" and request["ImageSignature"] == uploaded:
                phone.developer_image = True
                send_service(secured, {"Status": "Complete"})
            else:
                send_service(secured, {"Error": "UnknownCommand"})
