"""Whether a phone is up and awake enough to start the app, and waking it."""

from __future__ import annotations

import re
import time

from orchestrator.devices.android.errors import PhoneNotReady
from orchestrator.devices.android.link import AdbLink
from orchestrator.wire.errors import DeviceError

_WAKE_S = 3.0
_POLL_S = 0.25


def check_booted(link: AdbLink) -> None:
    """PhoneNotReady while the phone starts, and until its user has unlocked it once: before, no app can run."""
    if link.shell("getprop sys.boot_completed").text != "1":
        raise PhoneNotReady(
            f"{link.label} is still starting: wait until it shows its lock screen", "starting"
        )
    if link.shell("am get-started-user-state 0").text == "RUNNING_LOCKED":
        raise PhoneNotReady(
            f"{link.label} was not unlocked since it started: unlock it once with its code", "locked"
        )


def wake(link: AdbLink) -> None:
    """Switches the screen on; the app shows itself over a lock screen. DeviceError where it stays dark."""
    if _is_awake(link):
        return
    link.shell("input keyevent KEYCODE_WAKEUP")
    deadline_s = time.monotonic() + _WAKE_S
    while not _is_awake(link):
        if time.monotonic() >= deadline_s:
            raise DeviceError(f"the screen of {link.label} stays off: switch it on and run the command again")
        time.sleep(_POLL_S)


def _is_awake(link: AdbLink) -> bool:
    """True too where the phone does not tell."""
    state = re.search(r"\bmWakefulness=(\w+)", link.shell("dumpsys power").text)
    return state is None or state[1] == "Awake"
