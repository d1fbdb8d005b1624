"""Whether the app is on a phone, and putting it there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import InvalidArtifactError
from luts.format.provenance import supplied
from orchestrator.devices.android.link import AdbLink
from orchestrator.wire.errors import DeviceError

PACKAGE = "dev.blocktime.bench"

_REMOTE_APK = "/data/local/tmp/blocktime.apk"
_INSTALL_TIMEOUT_S = 180.0
_HASH_TIMEOUT_S = 60.0
_COMPILE_TIMEOUT_S = 180.0

_REFUSALS = {
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
class Installed:
    """The app as it is on the phone."""

    version_code: int
    version_name: str


def find_installed(link: AdbLink) -> Installed | None:
    """The app on the phone; None where it is not installed."""
    text = link.shell(f"dumpsys package {PACKAGE}").text
    block = re.search(rf"^\s*Package \[{re.escape(PACKAGE)}\].*", text, re.MULTILINE | re.DOTALL)
    code = re.search(r"\bversionCode=(\d+)", block[0]) if block else None
    if block is None or code is None:
        return None
    name = re.search(r"\bversionName=(\S+)", block[0])
    return Installed(int(code[1]), name[1] if name else "")


def is_same(link: AdbLink, apk: Path) -> bool:
    """Whether the installed app is this very file."""
    answer = link.shell(
        f'sha256sum "$(pm path {PACKAGE} | head -n 1 | cut -d: -f2)"', timeout_s=_HASH_TIMEOUT_S
    )
    try:
        with apk.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidArtifactError(f"can't read the app {apk}: {error.strerror}; check the path") from None
    return answer.exit_code == 0 and answer.text.split(maxsplit=1)[:1] == [digest]


def install(link: AdbLink, apk: Path) -> None:
    """Installs or upgrades the app, keeps its data, and has its code compiled.

    DeviceError with the reason where the phone refuses it.
    """
    try:
        link.push(apk, _REMOTE_APK)
        answer = link.shell(f"pm install -r {_REMOTE_APK}", timeout_s=_INSTALL_TIMEOUT_S)
    finally:
        link.shell(f"rm -f {_REMOTE_APK}")
    if answer.exit_code == 0 and "Success" in answer.text:
        _compile(link)
        return
    code = re.search(r"INSTALL_\w+", answer.text)
    said = answer.text.splitlines()[-1][:200] if answer.text else f"pm ended with {answer.exit_code}"
    reason = _REFUSALS.get(
        code[0] if code else "", f"it said {said}; build the app again, see {supplied('docs/android.md')}"
    )
    raise DeviceError(f"{link.label} does not install {apk.name}: {reason}")


def _compile(link: AdbLink) -> None:
    """Compiles the app's code ahead of time, for its first runs would be interpreted; a phone may refuse."""
    link.shell(f"cmd package compile -m speed -f {PACKAGE}", timeout_s=_COMPILE_TIMEOUT_S)
