"""An iPhone that is measured: made ready, connected to, and found again after its cable was pulled."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.agent.agent import ALLOW_VARIABLE, PHONE_PORT, TOKEN_VARIABLE
from orchestrator.devices.common import busy
from orchestrator.devices.common.device import Access
from orchestrator.devices.iphone.driver import PhoneDriver
from orchestrator.devices.iphone.errors import CannotLaunchError, PhoneGoneError, UnreachableError
from orchestrator.devices.iphone.ipa import read_ipa
from orchestrator.devices.iphone.state import BUNDLE_PREFIX, DEVELOPER_MODE_STEP, IphoneState
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError

# A run of hours should survive a night in which someone borrowed the cable for a moment, not one without the phone.
DEFAULT_WAIT_S = 600.0

# The owner has to find the phone, unlock it, tap Trust and type the passcode.
_TRUST_S = 120.0
_CODE = re.compile(r"[A-Z0-9]{8}")
_CODE_TRIES = 5
# The app opens its port within a second or two of its start; the first start after an installation takes longer.
_START_S = 30.0
# An agent that hangs up again and again has another reason than its last client.
_HANG_UP_S = 10.0
# A phone whose cable was put in a moment ago is listed, and may refuse its services still.
_SETTLE_S = 5.0
_POLL_S = 0.25


class IphoneDevice:
    """One attached phone, by its UDID.

    The app is started from here where iOS lets a computer do that, otherwise `access.ask` has its owner tap the
    icon and type the pairing code that it shows. BLOCKTIME_TOKEN in the environment is such a code (or the token
    with which the app is to be started) for runs that nobody watches.

    Args:
        state: What is known of the phone, as `list_phones` gives it.
        name: Its folder's name in luts/data.
        title: How people call it.
        app: A signed .ipa to install before the first connection.
        wait_s: How long `connect` waits for the phone to be attached again.
        timeout_s: How long the agent may take for an answer other than to `run`.
    """

    def __init__(
        self,
        driver: PhoneDriver,
        state: IphoneState,
        name: str,
        title: str,
        access: Access | None = None,
        app: Path | None = None,
        wait_s: float = DEFAULT_WAIT_S,
        timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.identity = state.udid
        self.agent_starts = 0
        self.fixed_performance = False
        self.allow = access.allow if access else ()
        self._driver = driver
        self._state = state
        self._title = title
        self._access = access or Access()
        self._app = app
        self._wait_s = wait_s if access is None or access.away_s is None else access.away_s
        self._timeout_s = timeout_s
        self._token = os.environ.get(TOKEN_VARIABLE, "")
        self._bundle = ""
        self._launched_pid: int | None = None

    def describe(self) -> str:
        ios = f", iOS {self._state.ios}" if self._state.ios else ""
        kind = f" ({self._state.product_type})" if self._state.product_type else ""
        return f"{self._title}{kind}{ios}, UDID {self._state.udid}"

    def connect(self) -> AgentClient:
        """A greeted connection. Waits for the phone where its cable was pulled; starts the app where it must.

        Raises:
            DeviceError: the phone stayed away, or its owner must do something first; says what.
            InvalidArtifactError: the .ipa is not a signed benchmark app.
        """
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                return (self._greet() if self._token and not self._app else None) or self._prepare_and_start()
            except (PhoneGoneError, UnreachableError):
                self._await_cable(deadline_s)

    def read_log(self) -> str:
        return ""

    def bring_to_front(self) -> None:
        if self._launched_pid is not None:
            environment = self._environment(self._token)
            self._launched_pid = self._driver.launch(self._state.udid, self._bundle, environment, fresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                    f"{self._title} ({self._state.udid}) did not come back within {self._wait_s / 60:.0f} min; "
                    "connect it by cable and run the same command again, what was measured is kept"
                )
            time.sleep(_POLL_S)

    def _is_attached(self) -> bool:
        """Whether its cable is in. Where systemd starts usbmuxd, it ends with the last phone."""
        try:
            return self._driver.attached().get(self._state.udid) == "usb"
        except UnreachableError:
            return False

    def _prepare_and_start(self) -> AgentClient:
        self._make_trusted()
        if self._app is not None:
            self._install(self._app)
            self._app = None
            if self._token and (client := self._greet()):
                return client
        elif not self._bundle:
            if self._state.app_step:
                raise DeviceError(f"{self._title}: {self._state.app_step}")
            (self._bundle,) = self._state.apps or {BUNDLE_PREFIX: ""}
        if self._state.developer_mode is not False:
            try:
                return self._launch()
            except CannotLaunchError as error:
                self._access.say(f"the app can't be started from here: {error}")
        elif not self._is_app_open():
            raise DeviceError(f"{self._title}: {DEVELOPER_MODE_STEP}, and run the same command again")
        return self._ask_for_code()

    def _make_trusted(self) -> None:
        self._state = self._look()
        if self._state.trust == "unpaired":
            self._access.say(f"unlock {self._title}, tap Trust on it and type its passcode")
            self._driver.pair(self._state.udid, _TRUST_S)
            self._state = self._look()
        if self._state.trust != "trusted" or self._state.connection != "usb":
            raise DeviceError(f"{self._title}: {self._state.next_step}, and run the same command again")

    def _look(self) -> IphoneState:
        """What is known of the phone now; one at the cable that does not answer yet gets `_SETTLE_S` to begin."""
        deadline_s = time.monotonic() + _SETTLE_S
        state = self._driver.look(self._state.udid)
        while state.connection == "usb" and state.trust == "silent" and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            state = self._driver.look(self._state.udid)
        return state

    def _install(self, app: Path) -> None:
        package = read_ipa(app)
        self._access.say(f"installing {app.name} ({package.version or 'no version'}) on {self._title}")
        self._driver.install(self._state.udid, app)
        self._bundle = package.bundle
        self._state = self._driver.look(self._state.udid)

    def _launch(self) -> AgentClient:
        token = self._token or secrets.token_hex(16)
        self._launched_pid = self._driver.launch(
            self._state.udid, self._bundle, self._environment(token), fresh=True
        )
        self._token = token
        self.agent_starts += 1
        deadline_s = time.monotonic() + _START_S
        while (client := self._greet()) is None:
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"the app was started on {self._title} but its agent does not answer on port {PHONE_PORT} with "
                    "the token it was given; look at the phone's screen, then run the same command again"
                )
            time.sleep(_POLL_S)
        return client

    def _environment(self, token: str) -> dict[str, str]:
        """Of the app that is started from here."""
        environment = {TOKEN_VARIABLE: token}
        if self._access.allow:
            environment[ALLOW_VARIABLE] = ",".join(self._access.allow)
        return environment

    def _ask_for_code(self) -> AgentClient:
        prompt = (
            f"open blocktime on {self._title} by tapping its icon, and type the pairing code that it shows"
        )
        for _ in range(_CODE_TRIES):
            try:
                code = re.sub(r"[\s-]", "", self._access.ask(prompt)).upper()
            except DeviceError as error:
                raise DeviceError(f"{error}; or set {TOKEN_VARIABLE} to it beforehand") from None
            if not _CODE.fullmatch(code):
                prompt = "a pairing code has 8 letters and digits; type the one that the app shows"
                continue
            self._token = code
            if client := self._greet():
                self.agent_starts += 1
                return client
            prompt = "the app is not open, or shows another code; open it and type the code that it shows now"
        raise DeviceError(
            f"no pairing code of {_CODE_TRIES} was right; open the app and run the same command again"
        )

    def _is_app_open(self) -> bool:
        sock = self._driver.open_socket(self._state.udid, PHONE_PORT)
        if sock is not None:
            sock.close()
        return sock is not None

    def _greet(self) -> AgentClient | None:
        """A connection with the token there is; None where no agent answers, or one with another token."""
        start_s, said = time.monotonic(), False
        while True:
            sock = self._driver.open_socket(self._state.udid, PHONE_PORT)
            if sock is None:
                return None
            try:
                return AgentClient.greeted(sock, self._token, self._timeout_s, self.name)
            except AgentError as error:
                if error.code == "unauthorized":
                    return None
                if error.code != "busy" or time.monotonic() - start_s > busy.BUSY_S:
                    raise
                if not said:
                    busy.tell_busy(self._access.say, self._title)
                said = True
            except AgentLost:
                if not self._is_attached():
                    raise PhoneGoneError(f"{self._title} is not attached; connect it by cable") from None
                if time.monotonic() - start_s > _HANG_UP_S:
                    return None
            time.sleep(_POLL_S)
