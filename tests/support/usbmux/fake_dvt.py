"""The process control of Apple's instruments service: starts the app with an environment, and ends it.

The DTX messages are read and written by pymobiledevice3's own codec, turned round: here the phone is the one that
is asked. It proves that the transport opens the service and asks for the right thing, not that the codec is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

from pymobiledevice3.dtx import DTXConnection, DTXService, dtx_on_invoke

if TYPE_CHECKING:
    from tests.support.usbmux.fake_phone import FakePhone

_SIGKILL = 9


def serve_dvt(phone: FakePhone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    """Serves one connection to the instruments service."""
    with contextlib.suppress(OSError):
        asyncio.run(_serve(phone, sock, tls))


async def _serve(phone: FakePhone, sock: socket.socket, tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
    connection = DTXConnection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    connection.register_service(_process_control(phone))
    await connection.connect()
    await connection.wait_disconnected()


def _process_control(phone: FakePhone) -> type[DTXService]:
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
            if bundle not in phone.apps:
                return 0
            phone.launched.append(bundle)
            start = phone.launch if options["KillExisting"] else phone.show
            return await asyncio.to_thread(start, environment)

        @dtx_on_invoke("sendSignal:toPid:")
        async def send_signal(self, number: int, pid: int) -> None:
            if number == _SIGKILL and pid == phone.pid:
                await asyncio.to_thread(phone.quit_app)

    return ProcessControl
