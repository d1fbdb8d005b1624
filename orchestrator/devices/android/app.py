"""The blocktime app on a phone: rights, token, start, stop and log."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from luts.format.errors import UsageError
from orchestrator.devices.android.install import PACKAGE
from orchestrator.devices.android.link import AdbLink
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import Caveat

_ACTIVITY = f"{PACKAGE}/.MainActivity"
_TOKEN_URI = f"content://{PACKAGE}.control/token"
_LOG_LINES = 2000


def grant_rights(link: AdbLink) -> None:
    """Notifications (Android 13) and no doze for the app. A phone that has no such thing refuses; that is fine."""
    link.shell(f"pm grant {PACKAGE} android.permission.POST_NOTIFICATIONS")
    link.shell(f"cmd deviceidle whitelist +{PACKAGE}")


def give_token(link: AdbLink, token: str) -> None:
    """Hands the token to the app through its provider, which only adb's shell may write to.

    `printf` and `read` are built into the shell: the token is on no command line. DeviceError where the app does
    not take it.
    """
    command = f'read -r t && printf %s "$t" | content write --uri {_TOKEN_URI}'
    answer = link.shell(command, token.encode() + b"\n")
    # `content` of some Androids ends with 0 even where it failed.
    if answer.exit_code != 0 or re.search(r"error|exception", answer.text, re.IGNORECASE):
        raise DeviceError(
            f"the app on {link.label} did not take the token ({_first_line(answer.text)}): install its current "
            "version (--app FILE.apk)"
        )


def start(link: AdbLink, allow: Sequence[str] = ()) -> None:
    """Brings the app to the front, which starts its agent. `allow` are the reasons for `not_ready` to ignore.

    UsageError for an unknown reason, DeviceError where Android does not start the app.
    """
    known = get_args(Caveat)
    for reason in allow:
        if reason not in known:
            raise UsageError(f"unknown reason {reason[:40]!r} to allow; known are {', '.join(known)}")
    extra = f" --esa allow {','.join(allow)}" if allow else ""
    answer = link.shell(f"am start -n {_ACTIVITY}{extra}")
    # `am` ends with 0 on older Androids even where it failed.
    if answer.exit_code != 0 or re.search(r"^Error", answer.text, re.MULTILINE):
        error = re.search(r"^Error: .*", answer.text, re.MULTILINE)
        said = error[0] if error else _first_line(answer.text)
        raise DeviceError(f"{link.label} does not start the app: {said}; install it again (--app FILE.apk)")


def stop(link: AdbLink) -> None:
    """Ends the app and its agent."""
    link.shell(f"am force-stop {PACKAGE}")


def read_log(link: AdbLink) -> bytes:
    """What the phone logged of the app, or of the last crashes where it is dead."""
    pids = link.shell(f"pidof {PACKAGE}").text.split()
    source = f"--pid={int(pids[0])}" if pids and pids[0].isdigit() else "-b crash"
    return link.shell(f"logcat -d -v threadtime -t {_LOG_LINES} {source}").output


def save_log(link: AdbLink, name: str) -> Path:
    """Writes the log to a file, and names it."""
    log = read_log(link)
    with tempfile.NamedTemporaryFile(prefix=f"blocktime-{name}-", suffix=".log", delete=False) as file:
        file.write(log)
    return Path(file.name)


def _first_line(text: str) -> str:
    return next((line.strip()[:200] for line in text.splitlines() if line.strip()), "it said nothing")
