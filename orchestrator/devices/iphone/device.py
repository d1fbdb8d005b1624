"""An iPhone as a device that can be measured, and the app's package (.ipa) that it may be given."""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from luts.format.errors import InvalidArtifactError
from luts.format.files import DAMAGED_ZIP, open_zip
from orchestrator.agent.agent import ALLOW_VARIABLE, PHONE_PORT, TOKEN_VARIABLE
from orchestrator.devices.common.device import (
    ANSWER_TIMEOUT_S,
    BUSY_TIMEOUT_S,
    Access,
    Device,
    KindUnavailableError,
    check_phone,
    say_busy,
)
from orchestrator.devices.iphone.state import (
    BUNDLE_PREFIX,
    DEVELOPER_MODE_STEP,
    CannotLaunchError,
    IphoneState,
    PhoneGoneError,
    is_bench_app,
)
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError

if TYPE_CHECKING:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice

APP_VARIABLE = "BLOCKTIME_IOS_APP"

# The user has to find the phone, unlock it, tap Trust and type the passcode.
_TRUST_TIMEOUT_S = 120.0
_CODE = re.compile(r"[A-Z0-9]{8}")
_MAX_CODES = 5
# The app opens its port within a second or two of its start; the first start after an installation takes longer.
_START_TIMEOUT_S = 30.0
# An agent that hangs up again and again has another reason than its last client.
_HANG_UP_TIMEOUT_S = 10.0
# A phone whose cable was just plugged in is listed, but may still refuse its services.
_SETTLE_TIMEOUT_S = 5.0
_POLL_S = 0.25

_MAX_IPA_BYTES = 1 << 30
_MAX_PLIST_BYTES = 1 << 20
_INFO_PLIST = re.compile(r"Payload/[^/]+\.app/Info\.plist")
_PROFILE = re.compile(r"Payload/[^/]+\.app/embedded\.mobileprovision")
_PLIST = re.compile(rb"<\?xml.*</plist>", re.DOTALL)
_SIGNATURE = re.compile(r"Payload/[^/]+\.app/_CodeSignature/CodeResources")


class IphoneDevice(Device):
    """One attached phone, identified by its UDID.

    The app is started from this computer if iOS allows that; otherwise the user taps its icon, and `access.ask`
    asks for the pairing code that it shows. BLOCKTIME_TOKEN in the environment replaces that code (or is the token
    with which the app is started) for unattended runs.
    """

    def __init__(self, driver: MobileDevice, state: IphoneState, access: Access | None = None) -> None:
        """Prepare a device from what `list_phones` returned; nothing is opened before `connect`.

        An app named in `access` or in BLOCKTIME_IOS_APP is installed on first connection.
        """
        access = access or Access()
        self.name = state.name
        self.identity = state.udid
        self.allow = access.allow
        self._driver = driver
        self._state = state
        self._title = state.title
        self._access = access
        app = os.environ.get(APP_VARIABLE)
        self._app = access.app or (Path(app) if app else None)
        self._reconnect_timeout_s = access.reconnect_timeout_s
        self._token = os.environ.get(TOKEN_VARIABLE, "")
        self._bundle = ""
        self._launched_pid: int | None = None

    def describe(self) -> str:
        """Return one line for people: what the device is and how it is connected."""
        ios = f", iOS {self._state.ios}" if self._state.ios else ""
        kind = f" ({self._state.product_type})" if self._state.product_type else ""
        return f"{self._title}{kind}{ios}, UDID {self._state.udid}"

    def connect(self) -> AgentClient:
        """Return an authenticated connection; wait for a phone that was unplugged, start the app if needed.

        Raises:
            DeviceError: The phone stayed away, or its user must do something first; says what.
            InvalidArtifactError: The .ipa is not a signed benchmark app.
        """
        deadline_s = time.monotonic() + self._reconnect_timeout_s
        while True:
            try:
                client = self._connect_agent() if self._token and not self._app else None
                return client or self._prepare_and_start()
            except (PhoneGoneError, KindUnavailableError):
                self._await_cable(deadline_s)

    def check_ready(self) -> None:
        """Pair the phone, and check app, storage and what only its user can do; see `Device.check_ready`."""
        package = self._read_app(self._app) if self._app else None
        self._pair()
        build = package.build if package else self._installed_build()
        check_phone(self._title, build, self._driver.free_bytes(self._state.udid))
        if not self._state.starts_apps:
            self._check_open_app()

    def bring_to_front(self) -> None:
        """Switch the screen on and show the app."""
        if self._launched_pid is not None:
            environment = self._environment(self._token)
            self._launched_pid = self._driver.launch(self._state.udid, self._bundle, environment, fresh=False)

    def __exit__(self, *_: object) -> None:
        """End the app, if it was started from this computer."""
        pid, self._launched_pid = self._launched_pid, None
        if pid is not None:
            with contextlib.suppress(DeviceError):
                self._driver.kill(self._state.udid, pid)

    def _await_cable(self, deadline_s: float) -> None:
        minutes = max(0.0, deadline_s - time.monotonic()) / 60
        self._access.say(f"{self._title} is not attached: waiting up to {minutes:.0f} min for its cable")
        while not self._is_attached():
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"{self._title} ({self._state.udid}) did not come back within "
                    f"{self._reconnect_timeout_s / 60:.0f} min; connect it by cable and run the same command "
                    "again, measurements so far are kept",
                    code="phone_did_not_return",
                )
            time.sleep(_POLL_S)

    def _is_attached(self) -> bool:
        """Return whether the cable is plugged in; a usbmuxd that systemd starts ends with the last phone."""
        try:
            return self._driver.attached().get(self._state.udid) == "usb"
        except KindUnavailableError:
            return False

    def _prepare_and_start(self) -> AgentClient:
        self._pair()
        if self._app is not None:
            self._install(self._app)
            self._app = None
            if self._token and (client := self._connect_agent()):
                return client
        elif not self._bundle:
            self._installed_build()
            (self._bundle,) = self._state.apps or {BUNDLE_PREFIX: ""}
        if self._state.developer_mode is not False:
            try:
                return self._launch()
            except CannotLaunchError as error:
                self._access.say(f"the app cannot be started from here: {error}")
        else:
            self._require_developer_mode()
        return self._ask_for_code()

    def _installed_build(self) -> str:
        """Return the app's build number, empty if unknown; raise DeviceError unless there is exactly one app."""
        if self._state.app_step:
            raise DeviceError(f"{self._title}: {self._state.app_step}", code="app_not_installed")
        return next(iter((self._state.apps or {}).values()), "")

    def _require_developer_mode(self) -> None:
        """Raise DeviceError if Developer Mode is off and the user has not opened the app."""
        if self._state.developer_mode is False and not self._is_app_open():
            raise DeviceError(
                f"{self._title}: {DEVELOPER_MODE_STEP}, and run the same command again",
                code="developer_mode_off",
            )

    def _check_open_app(self) -> None:
        """Check the app that only the user can start: BLOCKTIME_TOKEN, if given, must be its code."""
        self._require_developer_mode()
        client = self._connect_agent() if self._token else None
        if client is not None:
            client.close()
        elif self._token:
            raise DeviceError(
                f"{TOKEN_VARIABLE} is not the code of the app on {self._title}: open the app and give its code",
                code="wrong_pairing_code",
            )
        else:
            self._access.say(f"after the exports, you will be asked for the code of the app on {self._title}")

    def _pair(self) -> None:
        self._state = self._read_settled_state()
        if self._state.trust == "unpaired":
            self._access.say(f"unlock {self._title}, tap Trust on it and type its passcode")
            self._driver.pair(self._state.udid, _TRUST_TIMEOUT_S)
            self._state = self._read_settled_state()
        if self._state.trust != "trusted" or self._state.connection != "usb":
            raise DeviceError(
                f"{self._title}: {self._state.next_step}, and run the same command again",
                code="phone_not_ready",
            )

    def _read_settled_state(self) -> IphoneState:
        """Read the phone's state, giving one that was just plugged in a few seconds to answer."""
        deadline_s = time.monotonic() + _SETTLE_TIMEOUT_S
        state = self._driver.read_state(self._state.udid)
        while state.connection == "usb" and state.trust == "silent" and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            state = self._driver.read_state(self._state.udid)
        return state

    def _read_app(self, app: Path) -> IpaInfo:
        package = read_ipa(app)
        if package.devices is not None and not any(map(self._state.matches, package.devices)):
            raise InvalidArtifactError(
                f"{app} is signed for other devices: register {self._state.udid} with your team and export again",
                code="signed_for_other_devices",
            )
        return package

    def _install(self, app: Path) -> None:
        package = self._read_app(app)
        self._access.say(f"installing {app.name} ({package.version or 'no version'}) on {self._title}")
        self._driver.install(self._state.udid, app)
        self._bundle = package.bundle
        self._state = self._driver.read_state(self._state.udid)

    def _launch(self) -> AgentClient:
        token = self._token or secrets.token_hex(16)
        self._launched_pid = self._driver.launch(
            self._state.udid, self._bundle, self._environment(token), fresh=True, say=self._access.say
        )
        self._token = token
        self.agent_starts += 1
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while (client := self._connect_agent()) is None:
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"the app was started on {self._title}, but its agent does not answer on port {PHONE_PORT}; "
                    "look at the phone's screen, then run the same command again",
                    code="agent_silent",
                )
            time.sleep(_POLL_S)
        return client

    def _environment(self, token: str) -> dict[str, str]:
        """Return the environment for an app that is started from this computer."""
        environment = {TOKEN_VARIABLE: token}
        if self.allow:
            environment[ALLOW_VARIABLE] = ",".join(self.allow)
        return environment

    def _ask_for_code(self) -> AgentClient:
        prompt = (
            f"open blocktime on {self._title} by tapping its icon, and type the pairing code that it shows"
        )
        for _ in range(_MAX_CODES):
            try:
                code = re.sub(r"[\s-]", "", self._access.ask(prompt)).upper()
            except DeviceError as error:
                raise DeviceError(
                    f"{error}; or set {TOKEN_VARIABLE} to it beforehand", code="no_user"
                ) from None
            if not _CODE.fullmatch(code):
                prompt = "a pairing code has 8 letters and digits; type the one that the app shows"
                continue
            self._token = code
            if client := self._connect_agent():
                self.agent_starts += 1
                return client
            prompt = "the app is not open, or shows another code; open it and type the code that it shows now"
        raise DeviceError(
            f"{_MAX_CODES} wrong pairing codes: open the app and run the same command again",
            code="wrong_pairing_code",
        )

    def _is_app_open(self) -> bool:
        sock = self._driver.open_socket(self._state.udid, PHONE_PORT)
        if sock is not None:
            sock.close()
        return sock is not None

    def _connect_agent(self) -> AgentClient | None:
        """Connect with our token; return None if no agent answers, or one with another token."""
        start_s, reported = time.monotonic(), False
        while True:
            sock = self._driver.open_socket(self._state.udid, PHONE_PORT)
            if sock is None:
                return None
            try:
                return AgentClient.greeted(sock, self._token, ANSWER_TIMEOUT_S, self.name)
            except AgentError as error:
                if error.code == "unauthorized":
                    return None
                if error.code != "busy" or time.monotonic() - start_s > BUSY_TIMEOUT_S:
                    raise
                if not reported:
                    say_busy(self._access.say, self._title)
                reported = True
            except AgentLostError:
                if not self._is_attached():
                    raise PhoneGoneError(
                        f"{self._title} is not attached: connect it by cable", code="phone_lost"
                    ) from None
                if time.monotonic() - start_s > _HANG_UP_TIMEOUT_S:
                    return None
            time.sleep(_POLL_S)


@dataclass(frozen=True)
class IpaInfo:
    """The app in an .ipa; `devices` are the UDIDs of its provisioning profile, None if that has no list."""

    bundle: str
    version: str
    build: str = ""
    devices: tuple[str, ...] | None = None


def read_ipa(path: Path) -> IpaInfo:
    """Read what an .ipa holds.

    Raises:
        InvalidArtifactError: It is not a signed .ipa of the benchmark app.
    """
    info, names, profile = _read_info(path)
    bundle = info.get("CFBundleIdentifier") if isinstance(info, dict) else None
    if not isinstance(bundle, str) or not is_bench_app(bundle):
        raise InvalidArtifactError(
            f"{path} holds {str(bundle)[:80]!r}, not {BUNDLE_PREFIX}: export ios_bench/App",
            code="not_our_app",
        )
    if not any(_SIGNATURE.fullmatch(name) for name in names):
        raise InvalidArtifactError(
            f"{path} is not signed: export it from Xcode with your team's certificate", code="app_not_signed"
        )
    version, build = (str(info.get(f"CFBundle{key}", ""))[:64] for key in ("ShortVersionString", "Version"))
    devices = profile.get("ProvisionedDevices") if isinstance(profile, dict) else None
    return IpaInfo(bundle, version, build, tuple(map(str, devices)) if isinstance(devices, list) else None)


def _read_info(path: Path) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Return the app's Info.plist, the names of all files, and the provisioning profile, empty if there is none.

    A profile is a property list within a CMS envelope, which leaves its bytes as they are (Apple's TN3125).
    """
    try:
        if path.stat().st_size > _MAX_IPA_BYTES:
            raise InvalidArtifactError(
                f"{path} is over 1 GiB: give the .ipa that Xcode exported", code="bad_ipa"
            )
        with open_zip(path) as archive:
            names = archive.namelist()
            plists = [name for name in names if _INFO_PLIST.fullmatch(name)]
            profiles = [name for name in names if _PROFILE.fullmatch(name)]
            sizes = [archive.getinfo(name).file_size for name in plists + profiles]
            if len(plists) != 1 or max(sizes) > _MAX_PLIST_BYTES:
                raise InvalidArtifactError(
                    f"{path} is not an .ipa: it needs one Payload/*.app with an Info.plist", code="bad_ipa"
                )
            plist = _PLIST.search(archive.read(profiles[0])) if profiles else None
            profile = plistlib.loads(plist[0]) if plist else {}
            return plistlib.loads(archive.read(plists[0])), names, profile
    except OSError as error:
        raise InvalidArtifactError(
            f"cannot read {path}: {error.strerror}; give the path of the .ipa", code="unreadable_file"
        ) from None
    except (*DAMAGED_ZIP, ValueError, LookupError, TypeError, ExpatError) as error:
        why = str(error) or "it ends too early"
        raise InvalidArtifactError(
            f"{path} is not an .ipa ({why}): give the one that Xcode exported", code="bad_ipa"
        ) from None
