"""Android devices that an adb binary lists."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class AdbDevice:
    """One line of `adb devices -l`; `model` is empty where the device has not told it yet."""

    serial: str
    state: str
    model: str


def find_adb() -> str | None:
    """Path of the adb binary; None where there is none."""
    return shutil.which("adb")


def list_adb(adb: str) -> list[AdbDevice]:
    """Attached devices; starts adb's own server where none runs. OSError or SubprocessError where adb fails."""
    done = subprocess.run(
        [adb, "devices", "-l"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
        errors="replace",
    )
    return parse_devices(done.stdout)


def parse_devices(output: str) -> list[AdbDevice]:
    """The devices in the output of `adb devices -l`."""
    devices = []
    for line in output.splitlines():
        words = line.split()
        if len(words) < 2 or line.startswith(("List of", "*", "adb ")):
            continue
        fields = dict(word.split(":", 1) for word in words[2:] if ":" in word)
        state = "no permissions" if words[1] == "no" else words[1]
        devices.append(AdbDevice(words[0], state, fields.get("model", "").replace("_", " ")))
    return devices
