"""The driver on pymobiledevice3, whose coroutines run in one thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from pymobiledevice3 import exceptions as pmd
from pymobiledevice3 import usbmux
from pymobiledevice3.lockdown import SERVICE_PORT, PlistUsbmuxLockdownClient
from pymobiledevice3.lockdown_service_provider import LockdownServiceProvider
from pymobiledevice3.pair_records import create_pairing_records_cache_folder, generate_host_id
from pymobiledevice3.service_connection import ServiceConnection
from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
from pymobiledevice3.services.dvt.instruments.process_control import ProcessControl
from pymobiledevice3.services.installation_proxy import InstallationProxyService
from pymobiledevice3.services.mobile_image_mounter import auto_mount

from orchestrator.devices.iphone.address import MuxAddress
from orchestrator.devices.iphone.errors import CannotLaunchError, PhoneGoneError, UnreachableError
from orchestrator.devices.iphone.failures import explained, one_line
from orchestrator.devices.iphone.loop import LoopThread
from orchestrator.devices.iphone.state import Connection, IphoneState, Trust, is_bench_app

T = TypeVar("T")

# Local requests answer in milliseconds; a phone that is just waking up takes seconds.
_ANSWER_S = 20.0
_LOOK_S = 10.0
# Copying and verifying a hundred megabytes.
_INSTALL_S = 600.0
# The tunnel of iOS 17 is made anew for each launch, and the developer disk image is fetched once.
_LAUNCH_S = 300.0

_SIGKILL = 9
_FIRST_TUNNEL_IOS = (17, 4)
_LAST_LOCKDOWN_IOS = (17,)

# Nobody configures its logger here, and Python's last resort would print its warnings between our own lines.
logging.getLogger("pymobiledevice3").addHandler(logging.NullHandler())


class MobileDevice:
    """Implements PhoneDriver. Calls from several threads take turns."""

    def __init__(self, address: MuxAddress) -> None:
        self._address = address
        self._loop = LoopThread("iphones")
        self._lock = threading.Lock()

    def attached(self) -> dict[str, Connection]:
        return self._call("", self._attached())

    def look(self, udid: str) -> IphoneState:
        return self._call(udid, self._look(udid))

    def pair(self, udid: str, timeout_s: float) -> None:
        self._call(udid, self._pair(udid, timeout_s), timeout_s + _ANSWER_S)

    def open_socket(self, udid: str, port: int) -> socket.socket | None:
        return self._call(udid, self._open_socket(udid, port))

    def install(self, udid: str, ipa: Path) -> None:
        self._call(udid, self._install(udid, ipa), _INSTALL_S)

    def launch(self, udid: str, bundle: str, environment: Mapping[str, str], *, fresh: bool) -> int:
        return self._debug(udid, self._launch(udid, bundle, environment, fresh), _LAUNCH_S)

    def kill(self, udid: str, pid: int) -> None:
        self._debug(udid, self._kill(udid, pid), _ANSWER_S)

    def _call(self, udid: str, work: Coroutine[Any, Any, T], timeout_s: float = _ANSWER_S) -> T:
        with explained(udid, self._address), self._lock, self._address.exported():
            return self._loop.call(work, timeout_s)

    def _debug(self, udid: str, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """As `_call`, for what needs the developer services: any failure of theirs leaves the owner's tap."""
        try:
            return self._call(udid, work, timeout_s)
        except (PhoneGoneError, UnreachableError, CannotLaunchError):
            raise
        except Exception as error:
            raise CannotLaunchError(one_line(error)) from error

    async def _attached(self) -> dict[str, Connection]:
        attached: dict[str, Connection] = {}
        for device in await usbmux.list_devices():
            if device.is_usb or device.serial not in attached:
                attached[device.serial] = "usb" if device.is_usb else "network"
        return attached

    async def _look(self, udid: str) -> IphoneState:
        connection = (await self._attached()).get(udid)
        if connection is None:
            raise pmd.DeviceNotFoundError(udid)
        try:
            async with asyncio.timeout(_LOOK_S), self._lockdown(udid) as client:
                return await self._describe(client, udid, connection)
        except (pmd.ConnectionFailedError, pmd.ConnectionTerminatedError, OSError) as error:
            return IphoneState(udid, connection, silence=one_line(error))

    async def _describe(
        self, client: PlistUsbmuxLockdownClient, udid: str, connection: Connection
    ) -> IphoneState:
        trust: Trust = "unpaired"
        developer_mode: bool | None = None
        apps: dict[str, str] | None = None
        product_type, ios, owner_name = (
            str(client.all_values.get(key, ""))[:64]
            for key in ("ProductType", "ProductVersion", "DeviceName")
        )
        try:
            if await client.validate_pairing():
                trust = "trusted"
                developer_mode = await _developer_mode(client)
                apps = await _bench_apps(client)
        except (pmd.PasswordRequiredError, pmd.PasscodeRequiredError):
            trust = "locked"
        return IphoneState(udid, connection, product_type, ios, owner_name, trust, developer_mode, apps)

    @asynccontextmanager
    async def _lockdown(self, udid: str) -> AsyncIterator[PlistUsbmuxLockdownClient]:
        """Talks to lockdownd without a session: what it tells everybody is in `all_values`."""
        service = await ServiceConnection.create_using_usbmux(udid, SERVICE_PORT)
        try:
            async with await usbmux.create_mux() as mux:
                if not isinstance(mux, usbmux.PlistMuxConnection):
                    raise pmd.MuxVersionError("usbmuxd is too old; install a newer one")
                system_buid = await mux.get_buid()
            client = PlistUsbmuxLockdownClient(
                service,
                host_id=generate_host_id(),
                identifier=udid,
                label="blocktime",
                system_buid=system_buid,
                pairing_records_cache_folder=create_pairing_records_cache_folder(),
            )
            await client.get_value()
            yield client
        finally:
            await service.close()

    @asynccontextmanager
    async def _session(self, udid: str) -> AsyncIterator[PlistUsbmuxLockdownClient]:
        """Talks to lockdownd as a computer that the phone trusts."""
        async with self._lockdown(udid) as client:
            if not await client.validate_pairing():
                raise pmd.NotPairedError
            yield client

    async def _pair(self, udid: str, timeout_s: float) -> None:
        async with self._lockdown(udid) as client:
            await client.pair(timeout=timeout_s)
            if not await client.validate_pairing():
                raise pmd.FatalPairingError

    async def _open_socket(self, udid: str, port: int) -> socket.socket | None:
        device = await usbmux.select_device(udid, connection_type="USB")
        if device is None:
            raise pmd.DeviceNotFoundError(udid)
        try:
            sock = await device.connect(port)
        except pmd.ConnectionFailedToUsbmuxdError:
            raise
        except pmd.ConnectionFailedError:
            return None
        sock.setblocking(True)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def _install(self, udid: str, ipa: Path) -> None:
        async with self._session(udid) as client, InstallationProxyService(client) as installer:
            await installer.install_from_local(ipa)

    async def _launch(self, udid: str, bundle: str, environment: Mapping[str, str], fresh: bool) -> int:
        async with self._instruments(udid) as provider, ProcessControl(provider) as control:
            return int(await control.launch(bundle, environment=dict(environment), kill_existing=fresh))

    async def _kill(self, udid: str, pid: int) -> None:
        async with self._instruments(udid) as provider, ProcessControl(provider) as control:
            await control.signal(pid, _SIGKILL)

    @asynccontextmanager
    async def _instruments(self, udid: str) -> AsyncIterator[DvtProvider]:
        """The developer services: through lockdownd up to iOS 16, through a tunnel of our own from 17.4."""
        async with self._session(udid) as client:
            ios = tuple(int(part) for part in client.product_version.split("."))
            if ios < _LAST_LOCKDOWN_IOS:
                async with _provider(client) as provider:
                    yield provider
                return
        if ios < _FIRST_TUNNEL_IOS:
            raise CannotLaunchError("iOS 17.0 to 17.3 starts apps for Xcode only; iOS 17.4 or later helps")
        from pymobiledevice3.remote.userspace_tunnel import UserspaceRsdTunnel

        tunnel = UserspaceRsdTunnel(serial=udid, autopair=False, remotepairing_fallback=False)
        async with tunnel as rsd, _provider(rsd) as provider:
            yield provider


@asynccontextmanager
async def _provider(lockdown: LockdownServiceProvider) -> AsyncIterator[DvtProvider]:
    """The developer services lie on a disk image, which a restart of the phone unmounts: mounted where missing."""
    async with AsyncExitStack() as stack:
        try:
            provider = await stack.enter_async_context(DvtProvider(lockdown))
        except (pmd.InvalidServiceError, pmd.StartServiceError):
            await _mount_developer_image(lockdown)
            provider = await stack.enter_async_context(DvtProvider(lockdown))
        yield provider


async def _mount_developer_image(lockdown: LockdownServiceProvider) -> None:
    """Fetches the image once, has Apple sign it for this phone from iOS 17 on, and mounts it."""
    try:
        with contextlib.suppress(pmd.AlreadyMountedError):
            await auto_mount(lockdown)
    except Exception as error:
        raise CannotLaunchError(
            f"its developer disk image can't be mounted ({one_line(error)}): let this computer reach the internet, "
            "or open Xcode's Devices window once"
        ) from error


async def _developer_mode(client: PlistUsbmuxLockdownClient) -> bool | None:
    try:
        return await client.get_developer_mode_status()
    except (pmd.MissingValueError, pmd.GetProhibitedError):
        return None


async def _bench_apps(client: PlistUsbmuxLockdownClient) -> dict[str, str]:
    async with InstallationProxyService(client) as installer:
        apps = await installer.get_apps(application_type="User")
    return {
        bundle[:128]: str(app.get("CFBundleShortVersionString") or "?")[:64]
        for bundle, app in apps.items()
        if is_bench_app(bundle)
    }
