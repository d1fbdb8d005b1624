"""An Android phone as a device that can be measured."""

from __future__ import annotations

import contextlib
import secrets
import time

from orchestrator.agent.agent import PHONE_PORT
from orchestrator.devices.android import app, phones
from orchestrator.devices.android.link import AdbLink, LinkLostError, PhoneNotReadyError, ServiceRefusedError
from orchestrator.devices.android.phones import AndroidPhone, slug
from orchestrator.devices.common.device import ANSWER_TIMEOUT_S, BUSY_TIMEOUT_S, Access, Device, say_busy
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError

START_TIMEOUT_S = 30.0
"""From `am start` to the first answer: the app loads its runtime and opens its model store."""

# How long the agent may take to notice that our last connection is gone, unless that was lost during a load.
_STALE_TIMEOUT_S = 15.0

# How often in a row the agent that we started may not answer before the app counts as dead.
_MAX_SILENCES = 3

_POLL_S = 0.5
_RECONNECT_POLL_S = 2.0
_clock, _sleep = time.monotonic, time.sleep


class AndroidDevice(Device):
    """Installs and starts the app on first connection, reconnects after a loss, and stops the app at the end.

    With `access.fixed_performance`, the phone is in that mode from the first start of the app to the end.
    """

    def __init__(self, phone: AndroidPhone, access: Access | None = None) -> None:
        """Prepare a device of a phone that `phones.find` returned; nothing is opened before `connect`."""
        access = access or Access()
        self.name = phone.name or slug(phone.serial)
        self.identity = phone.serial
        self.fixed_performance = access.fixed_performance
        self.allow = access.allow
        self._phone = phone
        self._apk = app.Apk.find(access.app)
        self._say = access.say
        self._reconnect_timeout_s = access.reconnect_timeout_s
        self._token = secrets.token_hex(16)
        self._client: AgentClient | None = None
        self._link: AdbLink | None = None
        self._is_performance_fixed = False

    def describe(self) -> str:
        """Return one line for people: what the device is and how it is connected."""
        way = {"server": "the adb server", "usb": "USB", "tcp": "the network"}[self._phone.transport]
        return f"{self._phone.title} ({self._phone.serial}), reached over {way}"

    def check_ready(self) -> None:
        """Check authorisation, app and storage; see `Device.check_ready`."""
        try:
            app.check_booted(self._open_link())
            self._apk.check(self._open_link(), self._phone.title)
        finally:
            self._drop_link()  # exports may outlast it

    def connect(self) -> AgentClient:
        """Return an authenticated connection to the app's agent; after a loss, wait for the phone to come back.

        Raises:
            DeviceError: The phone is not attached or not ready, stays away, or the app does not start.
            AgentError: The agent refuses; `busy` if another program measures on the phone.
        """
        deadline_s, reason = _clock() + self._reconnect_timeout_s, ""
        while True:
            try:
                return self._connect_once()
            except (LinkLostError, PhoneNotReadyError) as error:
                self._drop_link()
                if not self.agent_starts:
                    raise
                if _clock() >= deadline_s:
                    raise DeviceError(
                        f"{self._phone.title} did not come back within {self._reconnect_timeout_s:.0f} s "
                        f"({error}); connect it and run the same command again, measurements so far are kept",
                        code="phone_did_not_return",
                    ) from None
                if str(error) != reason:
                    reason = str(error)
                    self._say(f"waiting for {self._phone.title}: {reason}")
            _sleep(_RECONNECT_POLL_S)

    def read_log(self) -> str:
        """Return the agent's recent log, empty if it cannot be read."""
        return "" if self._link is None else app.read_log(self._link).decode(errors="replace")

    def bring_to_front(self) -> None:
        """Switch the screen on and show the app."""
        if self._link is not None:
            app.wake(self._link)
            app.start(self._link, self.allow)

    def __exit__(self, *_: object) -> None:
        """Stop the app, switch off fixed performance mode, and close the link."""
        if self.agent_starts and self._link is not None:
            with contextlib.suppress(DeviceError):
                app.stop(self._link)
        if self._is_performance_fixed:
            self._release_performance()
        self._drop_link()

    def _release_performance(self) -> None:
        try:
            released = app.release_performance(self._open_link())
        except DeviceError:
            released = False
        if not released:
            self._say(
                f"{self._phone.title} may still be in its fixed performance mode: restart it, or run "
                f"`adb shell {app.FIXED_PERFORMANCE} false`"
            )

    def _open_link(self) -> AdbLink:
        if self._link is None:
            self._link = phones.open_link(self._phone.serial, self._ask_user)
        return self._link

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _ask_user(self) -> None:
        self._say(f"{self._phone.title} ({self._phone.serial}) asks: unlock it and allow USB debugging there")

    def _connect_once(self) -> AgentClient:
        link = self._open_link()
        client = self._connect_running(link)
        if client is not None:
            return client
        app.check_booted(link)
        if self.agent_starts:
            log = app.save_log(link, self.name)
            self._say(f"the app on {self._phone.title} had ended; starting it again, its log is {log}")
            app.stop(link)
        self._apk.ensure_installed(link)
        self._start(link)
        try:
            return self._await_agent(link)
        except AgentError as error:
            if error.code != "protocol_version":
                raise
            if not self._apk.replace(link):
                raise DeviceError(
                    f"{error}; install the app of this version (--app FILE.apk)",
                    code="app_of_another_version",
                ) from None
        self._start(link)
        return self._await_agent(link)

    def _start(self, link: AdbLink) -> None:
        if self.fixed_performance:
            self._is_performance_fixed = True
            app.fix_performance(link)
        app.compile_ahead(link)
        app.grant_rights(link)
        app.set_token(link, self._token)
        self.bring_to_front()
        self.agent_starts += 1

    def _connect_running(self, link: AdbLink) -> AgentClient | None:
        """Return a client of an agent that runs already and knows our token, None if there is none.

        Before our first start, `busy` means an earlier client whose end the agent has not noticed, or another
        program: wait as long as a load may take, then raise AgentError and leave the app alone. Later, `busy` is a
        connection of our own: wait until the load that it was lost in has ended, then start the app again. A cable
        that was just plugged in may fall out again, so a first silence of our own agent does not count.
        """
        first = not self.agent_starts
        load_s = self._client.load_left_s if self._client is not None else 0.0
        deadline_s = _clock() + (BUSY_TIMEOUT_S if first else max(_STALE_TIMEOUT_S, load_s))
        silences, reported = 0, False
        while True:
            try:
                return self._connect_agent(link)
            except (ServiceRefusedError, AgentLostError):
                silences += 1
                if first or silences == _MAX_SILENCES:
                    return None
            except AgentError as error:
                if error.code != "busy":
                    return None
                if first and _clock() >= deadline_s:
                    raise
                if first and not reported:
                    say_busy(self._say, self._phone.title)
                    reported = True
            if _clock() >= deadline_s:
                return None
            _sleep(_POLL_S)

    def _await_agent(self, link: AdbLink) -> AgentClient:
        """Connect to the agent just started; it opens its port, and takes its token, after `am` has returned."""
        deadline_s = _clock() + START_TIMEOUT_S
        while True:
            try:
                return self._connect_agent(link)
            except (ServiceRefusedError, AgentLostError) as error:
                reason = str(error)
            except AgentError as error:
                if error.code != "unauthorized":
                    raise
                reason = str(error)
            if _clock() >= deadline_s:
                raise DeviceError(
                    f"the app on {self._phone.title} was started, but its agent does not answer ({reason}); look "
                    f"at the phone, and at the app's log {app.save_log(link, self.name)}",
                    code="agent_silent",
                )
            _sleep(_POLL_S)

    def _connect_agent(self, link: AdbLink) -> AgentClient:
        sock = link.open_service(f"tcp:{PHONE_PORT}")
        self._client = AgentClient.greeted(sock, self._token, ANSWER_TIMEOUT_S, self.name)
        return self._client
