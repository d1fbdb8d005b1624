"""The driver for iPhones: pymobiledevice3, whose coroutines run in a thread of their own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pymobiledevice3 import exceptions as pmd
from pymobiledevice3 import usbmux
from pymobiledevice3.lockdown import SERVICE_PORT, PlistUsbmuxLockdownClient
from pymobiledevice3.lockdown_service_provider import LockdownServiceProvider
from pymobiledevice3.pair_records import create_pairing_records_cache_folder, generate_host_id
from pymobiledevice3.service_connection import ServiceConnection
from pymobiledevice3.services.afc import AfcService
from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
from pymobiledevice3.services.dvt.instruments.process_control import ProcessControl
from pymobiledevice3.services.installation_proxy import InstallationProxyService
from pymobiledevice3.services.mobile_image_mounter import (
    CRYPTEX_IMAGE_MIN_VERSION,
    auto_mount,
    fetch_personalized_ddi,
)

from luts.format.errors import BlocktimeError
from orchestrator.devices.common.device import KindUnavailableError, ignore_message
from orchestrator.devices.iphone.state import (
    CannotLaunchError,
    Connection,
    IphoneState,
    PhoneGoneError,
    Trust,
    exported_address,
    is_bench_app,
)
from orchestrator.wire.errors import DeviceError

T = TypeVar("T")

# Local requests take milliseconds; a phone that is just waking up takes seconds.
_ANSWER_TIMEOUT_S = 20.0
_STATE_TIMEOUT_S = 10.0
# Copying and verifying a hundred megabytes.
_INSTALL_TIMEOUT_S = 600.0
# The tunnel of iOS 17 is set up for each launch, and Apple's server signs the developer disk image for this phone.
_LAUNCH_TIMEOUT_S = 300.0
# The image is fetched once per computer. Its downloads have no time limit of their own.
_FETCH_REPORT_S = 10.0
_FETCH_REPORTS = 60

_SIGKILL = 9
_FIRST_TUNNEL_IOS = (17, 4)
_FIRST_IOS_WITHOUT_LOCKDOWN_LAUNCH = (17,)

_FAILURES: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    (
        (pmd.PasswordRequiredError, pmd.PasscodeRequiredError),
        "is locked: unlock it with its passcode and run the same command again",
        "phone_locked",
    ),
    (
        (pmd.PairingDialogResponsePendingError,),
        "still asks whether to trust this computer: unlock it, tap Trust, type its passcode, and run the same "
        "command again",
        "phone_not_trusting",
    ),
    (
        (pmd.UserDeniedPairingError, pmd.NotPairedError, pmd.FatalPairingError, pmd.InvalidHostIDError),
        "does not trust this computer: unplug it, plug it in again and tap Trust",
        "phone_not_trusting",
    ),
    (
        (pmd.AppInstallError,),
        "refused the app ({reason}): sign it with a profile that holds this phone, for its iOS or an earlier one",
        "install_refused",
    ),
    (
        (pmd.AfcException,),
        "did not take the app's package ({reason}): free some space on it",
        "install_refused",
    ),
    (
        (pmd.InvalidServiceError, pmd.StartServiceError),
        "lacks a service ({reason}): restart it, and install the newest pymobiledevice3 if its iOS is newer",
        "service_missing",
    ),
    ((TimeoutError,), "does not answer: unlock it, or unplug it and plug it in again", "phone_silent"),
    ((Exception,), "cannot be reached ({reason}): unplug it and plug it in again", "phone_silent"),
)

# Nobody configures its logger here, and Python's last resort would print its warnings between our own lines.
logging.getLogger("pymobiledevice3").addHandler(logging.NullHandler())


class _NoDeveloperServicesError(CannotLaunchError):
    """The phone lists no developer services: after a restart, its developer disk image has to be mounted again."""

    def __init__(self, ios: str, reason: str) -> None:
        super().__init__(f"its developer services do not start ({reason})", code="cannot_launch")
        self.ios = ios


class MobileDevice:
    """Talks to iPhones. All methods block; calls from several threads take turns.

    All raise KindUnavailableError if usbmuxd does not answer, PhoneGoneError if the phone is not attached, and
    DeviceError for what its user must put right.
    """

    def __init__(self, address: str) -> None:
        """Use the usbmuxd at `address`; nothing is opened yet."""
        self._address = address
        self._loop = _LoopThread("iphones")
        self._lock = threading.Lock()

    def attached(self) -> dict[str, Connection]:
        """Return the connection of each attached phone by UDID; a cable takes precedence over the network."""
        return self._call("", self._attached())

    def read_state(self, udid: str) -> IphoneState:
        """Read everything that can be learned without asking the phone's user."""
        return self._call(udid, self._read_state(udid))

    def pair(self, udid: str, timeout_s: float) -> None:
        """Have the phone ask its user whether to trust this computer, and wait for the answer."""
        self._call(udid, self._pair(udid, timeout_s), timeout_s + _ANSWER_TIMEOUT_S)

    def free_bytes(self, udid: str) -> int | None:
        """Return the phone's free storage, None if it does not say."""
        return self._call(udid, self._free_bytes(udid))

    def open_socket(self, udid: str, port: int) -> socket.socket | None:
        """Return a blocking socket to a port of the phone's loopback, None if nothing listens there."""
        return self._call(udid, self._open_socket(udid, port))

    def install(self, udid: str, ipa: Path) -> None:
        """Install or replace an app."""
        self._call(udid, self._install(udid, ipa), _INSTALL_TIMEOUT_S)

    def launch(
        self,
        udid: str,
        bundle: str,
        environment: Mapping[str, str],
        *,
        fresh: bool,
        say: Callable[[str], None] = ignore_message,
    ) -> int:
        """Show an app, started unless it runs, or restarted if `fresh`; return its process id.

        A missing developer disk image is downloaded, which `say` reports, and mounted; a tunnel opened before then
        does not list its services.

        Raises:
            CannotLaunchError: Only the user can start it.
        """

        def launch() -> int:
            work = self._launch(udid, bundle, environment, fresh)
            return self._call_developer_service(udid, work, _LAUNCH_TIMEOUT_S)

        try:
            return launch()
        except _NoDeveloperServicesError as missing:
            _fetch_developer_image(missing.ios, say)
        self._call_developer_service(udid, self._mount_developer_image(udid), _LAUNCH_TIMEOUT_S)
        return launch()

    def kill(self, udid: str, pid: int) -> None:
        """End a process that `launch` started; raises CannotLaunchError as `launch` does."""
        self._call_developer_service(udid, self._kill(udid, pid), _ANSWER_TIMEOUT_S)

    def _call(self, udid: str, work: Coroutine[Any, Any, T], timeout_s: float = _ANSWER_TIMEOUT_S) -> T:
        with _explained(udid, self._address), self._lock, exported_address(self._address):
            return self._loop.call(work, timeout_s)

    def _call_developer_service(self, udid: str, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Call what needs the developer services: after any failure of theirs, the user can still tap the icon."""
        try:
            return self._call(udid, work, timeout_s)
        except (PhoneGoneError, KindUnavailableError, CannotLaunchError):
            raise
        except Exception as error:
            raise CannotLaunchError(_one_line(error), code="cannot_launch") from error

    async def _attached(self) -> dict[str, Connection]:
        attached: dict[str, Connection] = {}
        for device in await usbmux.list_devices():
            if device.is_usb or device.serial not in attached:
                attached[device.serial] = "usb" if device.is_usb else "network"
        return attached

    async def _read_state(self, udid: str) -> IphoneState:
        connection = (await self._attached()).get(udid)
        if connection is None:
            raise pmd.DeviceNotFoundError(udid)
        try:
            async with asyncio.timeout(_STATE_TIMEOUT_S), self._lockdown(udid) as client:
                return await self._describe(client, udid, connection)
        except (pmd.ConnectionFailedError, pmd.ConnectionTerminatedError, OSError) as error:
            return IphoneState(udid, connection, silence=_one_line(error))

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
        """Talk to lockdownd without a session; its public values are in `all_values`."""
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
        """Talk to lockdownd as a computer that the phone trusts."""
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

    async def _free_bytes(self, udid: str) -> int | None:
        async with self._session(udid) as client, AfcService(client) as files:
            with contextlib.suppress(pmd.AfcException, KeyError, ValueError):
                return int((await files.get_device_info())["FSFreeBytes"])
        return None

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
        """Open the developer services; raises _NoDeveloperServicesError if the phone does not list them."""
        async with self._developer_lockdown(udid) as lockdown, AsyncExitStack() as stack:
            try:
                provider = await stack.enter_async_context(DvtProvider(lockdown))
            except (pmd.InvalidServiceError, pmd.StartServiceError) as error:
                raise _NoDeveloperServicesError(lockdown.product_version, _one_line(error)) from error
            yield provider

    async def _mount_developer_image(self, udid: str) -> None:
        """Mount the image; from iOS 17 on, Apple's server signs it for this phone."""
        async with self._developer_lockdown(udid) as lockdown:
            with _mounting(), contextlib.suppress(pmd.AlreadyMountedError):
                await auto_mount(lockdown)

    @asynccontextmanager
    async def _developer_lockdown(self, udid: str) -> AsyncIterator[LockdownServiceProvider]:
        """Open what starts the developer services: lockdownd up to iOS 16, a new tunnel from iOS 17.4."""
        async with self._session(udid) as client:
            ios = tuple(int(part) for part in client.product_version.split("."))
            if ios < _FIRST_IOS_WITHOUT_LOCKDOWN_LAUNCH:
                yield client
                return
        if ios < _FIRST_TUNNEL_IOS:
            raise CannotLaunchError(
                "iOS 17.0 to 17.3 starts apps for Xcode only: update to iOS 17.4 or later",
                code="cannot_launch",
            )
        from pymobiledevice3.remote.userspace_tunnel import UserspaceRsdTunnel

        async with UserspaceRsdTunnel(serial=udid, autopair=False, remotepairing_fallback=False) as rsd:
            yield rsd


def _fetch_developer_image(ios: str, say: Callable[[str], None]) -> None:
    """Download the image of iOS 17 or later, if pymobiledevice3 has not kept it; raises CannotLaunchError.

    Images of earlier versions are downloaded as they are mounted, when no tunnel is open.
    """
    major = int(ios.split(".")[0])
    if major < _FIRST_IOS_WITHOUT_LOCKDOWN_LAUNCH[0]:
        return
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def fetch() -> None:
        try:
            if major >= CRYPTEX_IMAGE_MIN_VERSION.major:
                from pymobiledevice3.services.cryptexd import fetch_cryptex_ddi

                fetch_cryptex_ddi()
            else:
                fetch_personalized_ddi()
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=fetch, name="developer-image", daemon=True).start()
    with _mounting():
        for number in range(1, _FETCH_REPORTS):
            if concurrent.futures.wait([done], _FETCH_REPORT_S).done:
                break
            say(f"downloading Apple's developer disk image: {number * _FETCH_REPORT_S:.0f} s so far")
        done.result(_FETCH_REPORT_S)


@contextmanager
def _mounting() -> Iterator[None]:
    """Translate what keeps the developer disk image from being downloaded or mounted."""
    try:
        yield
    except Exception as error:
        raise CannotLaunchError(
            f"its developer disk image cannot be mounted ({_one_line(error)}): let this computer reach the "
            "internet, or open Xcode's Devices window once",
            code="cannot_launch",
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
        bundle[:128]: str(app.get("CFBundleVersion") or "")[:64]
        for bundle, app in apps.items()
        if is_bench_app(bundle)
    }


@contextmanager
def _explained(udid: str, address: str) -> Iterator[None]:
    """Translate what pymobiledevice3 raises; `udid` is empty if usbmuxd itself is asked.

    An answer that the library does not understand can end in any exception of its parsers.
    """
    try:
        yield
    except BlocktimeError:
        raise
    except pmd.ConnectionFailedToUsbmuxdError:
        raise KindUnavailableError(
            f"no usbmuxd answers at {address or 'its default address'}",
            "start it (on Linux: apt install usbmuxd, then plug the iPhone in; macOS has it)",
            "no_usbmuxd",
        ) from None
    except (pmd.DeviceNotFoundError, pmd.NoDeviceConnectedError, pmd.BadDevError):
        raise PhoneGoneError(
            f"the iPhone {udid} is not attached: connect it by cable", code="phone_lost"
        ) from None
    except Exception as error:
        if not udid:
            raise KindUnavailableError(
                f"usbmuxd does not answer as it should ({_one_line(error)})", "restart it", "bad_usbmuxd"
            ) from error
        text, code = next((text, code) for kinds, text, code in _FAILURES if isinstance(error, kinds))
        raise DeviceError(f"the iPhone {udid} {text.format(reason=_one_line(error))}", code=code) from error


def _one_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class if it has none."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".")[:300] if lines else type(error).__name__


class _LoopThread:
    """A thread with an asyncio loop, from the first call to the end of the program.

    `asyncio.run` would not do: the caller may itself run in a loop, as in a notebook.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run `work` to its end; cancel it if the caller is interrupted, or after `timeout_s` (TimeoutError)."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
