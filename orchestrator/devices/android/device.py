"""An Android phone as a device that can be measured."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.agent.agent import PHONE_PORT
from orchestrator.devices.android import app, awake, clocks, finding
from orchestrator.devices.android.apk import AppFile
from orchestrator.devices.android.errors import LinkLost, NotInstalled, PhoneNotReady, ServiceRefused
from orchestrator.devices.android.link import AdbLink
from orchestrator.devices.android.phones import AndroidPhone, slug
from orchestrator.devices.common import busy
from orchestrator.devices.common.device import no_one_to_tell
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError

# From `am start` to an answer: the app loads its runtime and opens its store.
START_TIMEOUT_S = 30.0

# How long a phone may be away after it was there: a cable that was pulled, a restart.
COMEBACK_TIMEOUT_S = 600.0

# How long the agent may take to notice that our own last connection is gone, unless that was lost in a load.
_BUSY_TIMEOUT_S = 15.0

# How often an agent of ours may not answer before the app counts as dead.
_SILENCES = 3

_POLL_S = 0.5
_COMEBACK_POLL_S = 2.0
_clock, _sleep = time.monotonic, time.sleep


class AndroidDevice:
    """Installs and starts the app when first connected, finds it again after a loss, and stops it at the end.

    `say` gets lines for the user: a dialog to accept, a phone that is waited for, an app that had died. `allow` are
    the reasons for `not_ready` that the agent is to ignore. `apk` is the app's file, which the phone then gets.
    `fixed`: the phone is in its fixed performance mode from the first start of the app to the end.
    """

    def __init__(
        self,
        phone: AndroidPhone,
        *,
        apk: Path | None = None,
        allow: Sequence[str] = (),
        fixed: bool = False,
        say: Callable[[str], None] = no_one_to_tell,
        timeout_s: float = 60.0,
        comeback_timeout_s: float = COMEBACK_TIMEOUT_S,
    ) -> None:
        self.name = phone.name or slug(phone.serial)
        self.identity = phone.serial
        self.agent_starts = 0
        self.fixed_performance = fixed
        self._to_release = False
        self._phone = phone
        self._app = AppFile.find(apk)
        self.allow = tuple(allow)
        self._client: AgentClient | None = None
        self._say = say
        self._timeout_s = timeout_s
        self._comeback_timeout_s = comeback_timeout_s
        self._token = secrets.token_hex(16)
        self._link: AdbLink | None = None

    def describe(self) -> str:
        way = {"server": "the adb server", "usb": "USB", "tcp": "the network"}[self._phone.transport]
        return f"{self._phone.title} ({self._phone.serial}), reached over {way}"

    def connect(self) -> AgentClient:
        """A greeted connection to the app's agent. After a loss it waits for the phone to come back.

        DeviceError where the phone is not there, not ready or does not come back, or the app does not start;
        AgentError where the agent refuses (`busy`: another program measures on this phone).
        """
        deadline_s, told = _clock() + self._comeback_timeout_s, ""
        while True:
            try:
                return self._connect_once()
            except (LinkLost, PhoneNotReady) as error:
                self._drop_link()
                if not self.agent_starts:
                    raise
                if _clock() >= deadline_s:
                    raise DeviceError(
                        f"{self._phone.title} did not come back within {self._comeback_timeout_s:.0f} s: {error}"
                    ) from None
                if str(error) != told:
                    told = str(error)
                    self._say(f"waiting for {self._phone.title}: {told}")
            _sleep(_COMEBACK_POLL_S)

    def read_log(self) -> str:
        return "" if self._link is None else app.read_log(self._link).decode(errors="replace")

    def bring_to_front(self) -> None:
        if self._link is not None:
            awake.wake(self._link)
            app.start(self._link, self.allow)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.agent_starts and self._link is not None:
            with contextlib.suppress(DeviceError):
                app.stop(self._link)
        if self._to_release:
            self._release_clocks()
        self._drop_link()

    def _release_clocks(self) -> None:
        try:
            if self._link is None:
                self._link = finding.open_link(self._phone.serial, self._ask_user)
            released = clocks.release(self._link)
        except DeviceError:
            released = False
        if not released:
            self._say(
                f"{self._phone.title} may still be in its fixed performance mode: restart it, or run "
                f"`adb shell {clocks.SWITCH} false`"
            )

    def _connect_once(self) -> AgentClient:
        if self._link is None:
            self._link = finding.open_link(self._phone.serial, self._ask_user)
        link = self._link
        client = self._greet_running(link)
        if client is not None:
            return client
        awake.check_booted(link)
        if self.agent_starts:
            log = app.save_log(link, self.name)
            self._say(f"the app on {self._phone.title} had ended; starting it again, its log is {log}")
            app.stop(link)
        self._app.put_on(link)
        self._start(link)
        try:
            return self._await_agent(link)
        except AgentError as error:
            if error.code != "protocol_version":
                raise
            if not self._app.replace_on(link):
                raise NotInstalled(f"{error}; install the app of this version (--app FILE.apk)") from None
        self._start(link)
        return self._await_agent(link)

    def _start(self, link: AdbLink) -> None:
        if self.fixed_performance:
            self._to_release = True
            clocks.fix(link)
        app.grant_rights(link)
        app.give_token(link, self._token)
        self.bring_to_front()
        self.agent_starts += 1

    def _greet_running(self, link: AdbLink) -> AgentClient | None:
        """A client of the agent that runs already and knows our token; None where there is no such agent.

        `busy` before our first start is an earlier `bench` whose end the agent has not seen, or another program's
        measurement: it is waited for as long as a load may take, and left alone (AgentError). Later it is a
        connection of our own, after which a new start follows, not before the load that it was lost in. A cable
        that has just been plugged in may fall out again, so an agent of ours is not given up at its first silence.
        """
        left_s = self._client.load_left_s if self._client is not None else 0.0
        deadline_s, silences = _clock() + max(_BUSY_TIMEOUT_S, left_s), 0
        if not self.agent_starts:
            deadline_s = _clock() + busy.BUSY_S
        told = False
        while True:
            try:
                return self._greet(link)
            except (ServiceRefused, AgentLost):
                silences += 1
                if not self.agent_starts or silences == _SILENCES:
                    return None
            except AgentError as error:
                if error.code != "busy":
                    return None
                if not self.agent_starts and _clock() >= deadline_s:
                    raise
                if not (self.agent_starts or told):
                    busy.tell_busy(self._say, self._phone.title)
                    told = True
            if _clock() >= deadline_s:
                return None
            _sleep(_POLL_S)

    def _await_agent(self, link: AdbLink) -> AgentClient:
        """The agent that was just started. It opens its port, and takes its token, a moment after `am` returned."""
        deadline_s = _clock() + START_TIMEOUT_S
        while True:
            try:
                return self._greet(link)
            except (ServiceRefused, AgentLost) as error:
                reason = str(error)
            except AgentError as error:
                if error.code != "unauthorized":
                    raise
                reason = str(error)
            if _clock() >= deadline_s:
                raise DeviceError(
                    f"the app on {self._phone.title} was started, but its agent does not answer ({reason}); "
                    f"look at the phone, and at the app's log {app.save_log(link, self.name)}"
                )
            _sleep(_POLL_S)

    def _greet(self, link: AdbLink) -> AgentClient:
        sock = link.open_socket(PHONE_PORT)
        self._client = AgentClient.greeted(sock, self._token, self._timeout_s, self.name)
        return self._client

    def _ask_user(self) -> None:
        self._say(f"{self._phone.title} ({self._phone.serial}) asks: unlock it and allow USB debugging there")

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
