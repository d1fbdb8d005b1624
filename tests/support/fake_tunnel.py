"""The tunnel of iOS 17.4 and later to a fake iPhone, without its network stack.

The client's side is pymobiledevice3's own class: services are those that the phone listed at the handshake
(`peer_info`, RemoteServiceDiscoveryService.connect in pymobiledevice3 11.45), and a later one needs a new tunnel.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

from pymobiledevice3.remote.remote_service_discovery import RSD_PORT, RemoteServiceDiscoveryService
from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

from tests.support.fake_lockdown import serve_instruments

if TYPE_CHECKING:
    from tests.support.fake_iphone import FakeIphone

_INSTRUMENTS_PORT = 50001


class _TunnelledServices(RemoteServiceDiscoveryService):
    """Services of a phone, frozen at the handshake."""

    def __init__(self, phone: FakeIphone) -> None:
        super().__init__(("fd00::1", RSD_PORT), open_connection=self._dial)
        self._phone = phone

    async def connect(self) -> None:
        phone = self._phone
        services = {"com.apple.mobile.installation_proxy.shim.remote": {"Port": "50000"}}
        if phone.developer_image and phone.developer_mode:
            services[DvtProvider.RSD_SERVICE_NAME] = {"Port": str(_INSTRUMENTS_PORT)}
        properties = {
            "OSVersion": phone.ios,
            "UniqueDeviceID": phone.udid,
            "ProductType": phone.product_type,
        }
        self.peer_info = {"Properties": properties, "Services": services}
        self.udid, self.product_type = phone.udid, phone.product_type

    async def _dial(self, _host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert port == _INSTRUMENTS_PORT
        near, far = socket.socketpair()
        threading.Thread(target=serve_instruments, args=(self._phone, far, None), daemon=True).start()
        return await asyncio.open_connection(sock=near)


class FakeTunnel:
    """Takes the place of pymobiledevice3's UserspaceRsdTunnel; one may be open at a time.

    `events` receives `open` and `close`.
    """

    phone: FakeIphone
    events: list[str]

    def __init__(self, serial: str, autopair: bool, remotepairing_fallback: bool) -> None:
        assert (serial, autopair, remotepairing_fallback) == (self.phone.udid, False, False)

    async def __aenter__(self) -> RemoteServiceDiscoveryService:
        assert self.events.count("open") == self.events.count("close")
        self.events.append("open")
        services = _TunnelledServices(self.phone)
        await services.connect()
        return services

    async def __aexit__(self, *_: Any) -> None:
        self.events.append("close")
