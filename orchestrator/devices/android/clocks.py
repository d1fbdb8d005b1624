"""Android's fixed performance mode: clocks between bounds below the highest, so that they move less."""

from __future__ import annotations

from orchestrator.devices.android.link import AdbLink
from orchestrator.wire.errors import DeviceError

SWITCH = "cmd power set-fixed-performance-mode-enabled"


def fix(link: AdbLink) -> None:
    """Switches the mode on until `release`, or until the phone restarts. DeviceError where it has none."""
    answer = link.shell(f"{SWITCH} true")
    if answer.exit_code != 0:
        said = " ".join(answer.text.split())[:200] or "it said nothing"
        raise DeviceError(
            f"{link.label} has no fixed performance mode ({said}): leave --fixed-performance out"
        )


def release(link: AdbLink) -> bool:
    """Switches the mode off, which is how phones start; whether that was done. Nothing tells how it was before."""
    return link.shell(f"{SWITCH} false").exit_code == 0
