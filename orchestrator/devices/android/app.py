"""The blocktime app on an Android phone: installing, waking the screen, token, start, stop, log, fixed clocks."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.provenance import repo_file
from orchestrator.devices.android.link import AdbLink, PhoneNotReadyError
from orchestrator.devices.common.device import check_phone
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import Caveat

PACKAGE = "dev.blocktime.bench"
APK_VARIABLE = "BLOCKTIME_ANDROID_APP"
FIXED_PERFORMANCE = "cmd power set-fixed-performance-mode-enabled"

_ACTIVITY = f"{PACKAGE}/.MainActivity"
_TOKEN_URI = f"content://{PACKAGE}.control/token"
_BUILD_FOLDER = Path(__file__).parents[3] / "android_bench" / "app" / "build" / "outputs" / "apk" / "release"

_INSTALL_TIMEOUT_S = 300.0
_COMPILE_TIMEOUT_S = 180.0
_HASH_TIMEOUT_S = 60.0
_WAKE_TIMEOUT_S = 3.0
_POLL_S = 0.25
_LOG_LINES = 2000

_INSTALL_FAILURES = {
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "its storage is full: free some space there",
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": (
        f"the installed app has another signature: remove it with `adb uninstall {PACKAGE}`"
    ),
    "INSTALL_FAILED_VERSION_DOWNGRADE": (
        f"the installed app is newer: use its own .apk, or remove it with `adb uninstall {PACKAGE}`"
    ),
    "INSTALL_FAILED_OLDER_SDK": "its Android is too old for the app: measure on a newer phone",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the .apk has no code for its processor: build it with this phone's ABI",
    "INSTALL_FAILED_USER_RESTRICTED": "its settings forbid it: allow `install via USB` in the developer options",
    "INSTALL_FAILED_VERIFICATION_FAILURE": "its settings forbid it: switch off `verify apps over USB`",
    "INSTALL_PARSE_FAILED_NO_CERTIFICATES": "the .apk is not signed: build the signed release",
}


@dataclass(frozen=True)
class Apk:
    """The app's .apk on this computer, if there is one.

    Attributes:
        path: The file, None if there is none.
        requested: The user named it, so it replaces any other version on the phone. A file that was only found in
            the build folder is for phones without the app, or with an app of another protocol version.
    """

    path: Path | None
    requested: bool

    @classmethod
    def find(cls, path: Path | None = None) -> Apk:
        """Return `path`, else the file of BLOCKTIME_ANDROID_APP, else the signed release built here.

        Raises:
            UsageError: A file that the user named does not exist.
        """
        if path is None and os.environ.get(APK_VARIABLE):
            path = Path(os.environ[APK_VARIABLE])
        if path is not None:
            if not path.is_file():
                raise UsageError(
                    f"no file {path}: give the .apk of the app, see {repo_file('docs/android.md')}",
                    code="no_app_file",
                )
            return cls(path, requested=True)
        built = [apk for apk in sorted(_BUILD_FOLDER.glob("*.apk")) if "unsigned" not in apk.name]
        return cls(built[0] if built else None, requested=False)

    def check(self, link: AdbLink, phone: str) -> None:
        """Check the app and the storage of a phone, which messages call `phone`; nothing is installed.

        Raises:
            DeviceError: The app is missing or of an older protocol and there is no file, or the storage is full.
            InvalidArtifactError: The file is not a signed .apk.
        """
        is_installed = _is_installed(link)
        if self.path is not None and (self.requested or not is_installed):
            _check_file(self.path)
        elif not is_installed:
            raise _missing(link)
        listed = link.shell(f"cmd package list packages --user 0 --show-versioncode {PACKAGE}").text
        build = re.search(rf"^package:{PACKAGE} versionCode:(\d+)", listed, re.MULTILINE)
        free = re.search(r"\s(\d+)\s+\d+%\s", link.shell("df -k /data").text)
        check_phone(phone, build[1] if build and not self.path else "", int(free[1]) << 10 if free else None)

    def ensure_installed(self, link: AdbLink) -> None:
        """Install the app if the phone lacks it, or has another one than the user named.

        Raises:
            DeviceError: The app is missing and there is no file, or the phone refuses it.
        """
        if not _is_installed(link):
            if self.path is None:
                raise _missing(link)
            install(link, self.path)
        elif self.path is not None and self.requested and not _is_same(link, self.path):
            install(link, self.path)

    def replace(self, link: AdbLink) -> bool:
        """Install this file over another version; return False if it is installed already, or there is none."""
        if self.path is None or _is_same(link, self.path):
            return False
        install(link, self.path)
        return True


def install(link: AdbLink, apk: Path) -> None:
    """Install or upgrade the app and keep its data.

    Raises:
        DeviceError: The phone refuses the app; says why.
    """
    data = _read(apk)
    answer = link.shell(f"cmd package install -r -S {len(data)}", data, _INSTALL_TIMEOUT_S)
    if answer.exit_code == 0 and "Success" in answer.text:
        return
    failure = re.search(r"INSTALL_\w+", answer.text)
    last_line = answer.text.splitlines()[-1][:200] if answer.text else f"exit code {answer.exit_code}"
    reason = _INSTALL_FAILURES.get(
        failure[0] if failure else "", f"{last_line}; build the app again, see {repo_file('docs/android.md')}"
    )
    raise DeviceError(f"{link.serial} does not install {apk.name}: {reason}", code="install_refused")


def compile_ahead(link: AdbLink) -> None:
    """Have Android compile the app's code unless it is compiled, however it was installed; a phone may refuse.

    Otherwise its first runs would be interpreted. A process that runs keeps its code, so it is ended.
    """
    if "[status=speed]" not in link.shell(f"dumpsys package {PACKAGE}").text:
        stop(link)
        link.shell(f"cmd package compile -m speed -f {PACKAGE}", timeout_s=_COMPILE_TIMEOUT_S)


def grant_rights(link: AdbLink) -> None:
    """Allow the app notifications (Android 13) and exempt it from doze; a phone without them may refuse."""
    link.shell(f"pm grant {PACKAGE} android.permission.POST_NOTIFICATIONS")
    link.shell(f"cmd deviceidle whitelist +{PACKAGE}")


def set_token(link: AdbLink, token: str) -> None:
    """Give the app the token that clients need, through its provider, to which only adb's shell may write.

    `read` and `printf` are built into the shell, so that the token is on no command line.

    Raises:
        DeviceError: The app does not take it.
    """
    answer = link.shell(
        f'read -r t && printf %s "$t" | content write --uri {_TOKEN_URI}', token.encode() + b"\n"
    )
    # `content` of some Android versions exits with 0 even if it failed.
    if answer.exit_code != 0 or re.search(r"error|exception", answer.text, re.IGNORECASE):
        raise DeviceError(
            f"the app on {link.serial} did not take the token ({answer.first_line()}): install its current version "
            "(--app FILE.apk)",
            code="token_refused",
        )


def start(link: AdbLink, allow: Sequence[str] = ()) -> None:
    """Bring the app to the front, which starts its agent; `allow` as in `Access`.

    Raises:
        UsageError: Unknown condition in `allow`.
        DeviceError: Android does not start the app.
    """
    known = get_args(Caveat)
    for condition in allow:
        if condition not in known:
            raise UsageError(
                f"unknown condition {condition[:40]!r} to allow: choose among {', '.join(known)}",
                code="unknown_condition",
            )
    extra = f" --esa allow {','.join(allow)}" if allow else ""
    answer = link.shell(f"am start -n {_ACTIVITY}{extra}")
    error = re.search(r"^Error.*", answer.text, re.MULTILINE)
    # `am` of older Android versions exits with 0 even if it failed.
    if answer.exit_code != 0 or error:
        detail = re.search(r"^Error: .*", answer.text, re.MULTILINE)
        raise DeviceError(
            f"{link.serial} does not start the app ({detail[0] if detail else answer.first_line()}): install it "
            "again (--app FILE.apk)",
            code="app_not_started",
        )


def stop(link: AdbLink) -> None:
    """End the app and its agent."""
    link.shell(f"am force-stop {PACKAGE}")


def read_log(link: AdbLink) -> bytes:
    """Return what the phone logged about the app, or about the last crashes if it does not run."""
    pids = link.shell(f"pidof {PACKAGE}").text.split()
    source = f"--pid={int(pids[0])}" if pids and pids[0].isdigit() else "-b crash"
    return link.shell(f"logcat -d -v threadtime -t {_LOG_LINES} {source}").output


def save_log(link: AdbLink, name: str) -> Path:
    """Write the log to a temporary file of this user alone, and return its path."""
    log = read_log(link)
    with tempfile.NamedTemporaryFile(prefix=f"blocktime-{name}-", suffix=".log", delete=False) as file:
        file.write(log)
    return Path(file.name)


def check_booted(link: AdbLink) -> None:
    """Raise PhoneNotReadyError while the phone starts, and until it was unlocked once: no app can run before."""
    if link.shell("getprop sys.boot_completed").text != "1":
        raise PhoneNotReadyError(
            f"{link.serial} is still starting: wait until it shows its lock screen", "starting"
        )
    if link.shell("am get-started-user-state 0").text == "RUNNING_LOCKED":
        raise PhoneNotReadyError(
            f"{link.serial} has not been unlocked since it started: unlock it once with its code", "locked"
        )


def wake(link: AdbLink) -> None:
    """Switch the screen on; the app shows itself over a lock screen.

    Raises:
        DeviceError: The screen stays dark.
    """
    if _is_awake(link):
        return
    link.shell("input keyevent KEYCODE_WAKEUP")
    deadline_s = time.monotonic() + _WAKE_TIMEOUT_S
    while not _is_awake(link):
        if time.monotonic() >= deadline_s:
            raise DeviceError(
                f"the screen of {link.serial} stays off: switch it on and run the command again",
                code="screen_off",
            )
        time.sleep(_POLL_S)


def fix_performance(link: AdbLink) -> None:
    """Switch on fixed performance mode, which bounds the clocks, until `release_performance` or a restart.

    Raises:
        DeviceError: The phone does not have this mode.
    """
    answer = link.shell(f"{FIXED_PERFORMANCE} true")
    if answer.exit_code != 0:
        raise DeviceError(
            f"{link.serial} has no fixed performance mode ({answer.first_line()}): omit --fixed-performance",
            code="no_fixed_performance",
        )


def release_performance(link: AdbLink) -> bool:
    """Switch off fixed performance mode, which is how phones start, and return whether that worked."""
    return link.shell(f"{FIXED_PERFORMANCE} false").exit_code == 0


def _missing(link: AdbLink) -> DeviceError:
    return DeviceError(
        f"the blocktime app is not on {link.serial}: build it ({repo_file('docs/android.md')}) and name it with "
        "--app FILE.apk",
        code="app_not_installed",
    )


def _check_file(apk: Path) -> None:
    """Raise InvalidArtifactError unless a file has the signature block of an .apk, which Android 11 requires."""
    if b"APK Sig Block 42" not in _read(apk):
        raise InvalidArtifactError(
            f"{apk} is not a signed .apk: build the signed release", code="app_not_signed"
        )


def _is_installed(link: AdbLink) -> bool:
    return link.shell(f"pm path {PACKAGE}").text.startswith("package:")


def _is_same(link: AdbLink, apk: Path) -> bool:
    """Return whether the installed app is this very file."""
    digest = hashlib.sha256(_read(apk)).hexdigest()
    command = f'sha256sum "$(pm path {PACKAGE} | head -n 1 | cut -d: -f2)"'
    answer = link.shell(command, timeout_s=_HASH_TIMEOUT_S)
    return answer.exit_code == 0 and answer.text.split(maxsplit=1)[:1] == [digest]


def _is_awake(link: AdbLink) -> bool:
    """Return whether the screen is on, True if the phone does not say."""
    state = re.search(r"\bmWakefulness=(\w+)", link.shell("dumpsys power").text)
    return state is None or state[1] == "Awake"


def _read(apk: Path) -> bytes:
    try:
        return apk.read_bytes()
    except OSError as error:
        raise InvalidArtifactError(
            f"cannot read the app {apk}: {error.strerror}; check the path", code="unreadable_file"
        ) from None
