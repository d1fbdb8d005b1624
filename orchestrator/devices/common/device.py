"""The interface of a device that can be measured, and the options for opening one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from orchestrator.wire.client import LOAD_LIMIT_S, AgentClient
from orchestrator.wire.errors import DeviceError

BUSY_TIMEOUT_S = LOAD_LIMIT_S
"""How long a first connection waits for an agent that is busy with an earlier client.

A client that was killed while a model was loaded still counts as connected until that load ends.
"""

RECONNECT_TIMEOUT_S = 600.0
"""How long a phone that disconnected is waited for: enough for a borrowed cable or a restart, not for a night."""

ANSWER_TIMEOUT_S = 60.0
"""How long an agent may take to answer any request but a load or a run."""

MIN_FREE_BYTES = 500_000_000
"""Free storage for a batch of seven models of 22 MB (mobilevit-s in fp32) and what Core ML compiles of them."""

OLDEST_APP_BUILD = 1
"""Build number (versionCode, CFBundleVersion) of the first app that speaks this protocol."""


class KindUnavailableError(DeviceError):
    """No device of one kind can be seen from this computer: a package, a daemon or a driver is missing.

    `next_step` says what to do about `reason`.
    """

    def __init__(self, reason: str, next_step: str, code: str) -> None:
        """Make the error whose message is `reason: next_step`."""
        super().__init__(f"{reason}: {next_step}", code=code)
        self.reason = reason
        self.next_step = next_step


def ignore_message(message: str) -> None:
    """Drop a message: the default `say` of a program without a user."""


def refuse_question(prompt: str) -> str:
    """Raise DeviceError with the question: the default `ask` of a program without a user."""
    raise DeviceError(f"input is needed, but nobody can be asked: {prompt}", code="no_user")


@dataclass(frozen=True)
class Access:
    """How a device is opened.

    Attributes:
        agent: Language of the host's agent; phones have their own.
        allow: Names of conditions (`caveats` in PROTOCOL.md) under which the agent may measure nevertheless.
        app: File of the benchmark app (.apk, .ipa) to install first; None uses the app on the phone.
        say: Receives one-line progress messages.
        ask: Asks the user for input such as a pairing code; raises DeviceError if there is no user.
        fixed_performance: Put an Android phone into its fixed performance mode while it is used.
        reconnect_timeout_s: Seconds to wait for a phone that disconnected.
    """

    agent: str = "python"
    allow: tuple[str, ...] = ()
    app: Path | None = None
    say: Callable[[str], None] = ignore_message
    ask: Callable[[str], str] = refuse_question
    fixed_performance: bool = False
    reconnect_timeout_s: float = RECONNECT_TIMEOUT_S


class Device(Protocol):
    """A device that can be measured; a context manager that ends what `connect` started.

    Attributes:
        name: Folder name in luts/data.
        identity: Identifies one piece of hardware, however it is connected; empty for a simulated device, of which
            there can be any number.
        agent_starts: How often `connect` had to start an agent. If a connection was lost and this number has not
            grown, the cable was at fault; if it has, the agent had died.
        fixed_performance: The device is in its fixed performance mode while it is used.
        allow: Conditions under which the agent may measure nevertheless.
    """

    name: str
    identity: str
    agent_starts: int = 0
    fixed_performance: bool = False
    allow: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line for people: what the device is and how it is connected."""

    def check_ready(self) -> None:
        """Check a phone before models are exported for it; nothing is started, and its screen stays as it is.

        Raises:
            DeviceError: Its user must do something first.
            InvalidArtifactError: The app's file cannot be installed.
        """
        return

    def connect(self) -> AgentClient:
        """Return an authenticated connection, starting or restarting the agent if needed.

        Raises:
            DeviceError: The device or its agent cannot be reached.
        """

    def bring_to_front(self) -> None:
        """Switch the screen on and show the app, which runs slower in the background; no-op without a screen.

        Raises:
            DeviceError: The app cannot be shown from this computer.
        """
        return

    def read_log(self) -> str:
        """Return the agent's recent log, empty if it cannot be read from this computer."""
        return ""

    def __enter__(self) -> Self:
        """Return the device."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what `connect` started."""


def check_phone(phone: str, app_build: str, free_bytes: int | None) -> None:
    """Raise DeviceError if a phone's app speaks an older protocol or its storage is full."""
    if app_build.isdecimal() and int(app_build) < OLDEST_APP_BUILD:
        raise DeviceError(
            f"the app for {phone} is build {app_build}, of an older protocol: give the current one with --app",
            code="app_of_another_version",
        )
    if free_bytes is not None and free_bytes < MIN_FREE_BYTES:
        raise DeviceError(
            f"{phone} has {free_bytes / 1e6:.0f} MB free, models take {MIN_FREE_BYTES / 1e6:.0f}: free some of it",
            code="phone_full",
        )


def say_busy(say: Callable[[str], None], phone: str) -> None:
    """Tell the user that the app is busy with an earlier client, and how to stop waiting."""
    say(
        f"the app on {phone} is still busy with an earlier client (compiling a model can take minutes): waiting up "
        f"to {BUSY_TIMEOUT_S / 60:.0f} min; close the app to stop waiting"
    )
