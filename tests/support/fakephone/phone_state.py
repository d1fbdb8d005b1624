"""What a phone's system knows: its properties, screen and installed packages. Tests change it at will."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fakephone.apk import Apk

# As `adb -s … shell getprop` of a Pixel 8 lists them, cut down to what clients ask for.
PIXEL_8 = {
    "ro.product.brand": "google",
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.product.name": "shiba",
    "ro.product.device": "shiba",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.build.version.release": "15",
    "ro.build.version.sdk": "35",
    "ro.build.id": "AP4A.250205.002",
    "ro.build.fingerprint": "google/shiba/shiba:15/AP4A.250205.002/12821496:user/release-keys",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.hardware": "shiba",
    "ro.serialno": "37281FDJH0042",
    "sys.boot_completed": "1",
}

# What an emulator that plays this phone tells otherwise.
EMULATED = {"ro.boot.qemu": "1", "ro.hardware": "ranchu", "ro.soc.manufacturer": "", "ro.soc.model": ""}


@dataclass
class InstalledPackage:
    """One package, what was allowed to it, and how its code was compiled."""

    apk: Apk
    path: Path
    granted: set[str] = field(default_factory=set)
    compiler_filter: str = "verify"


@dataclass
class PhoneState:
    """Mutable, because a phone's state is; one phone's threads and its test share it.

    `in_front`: the benchmark's activity is on the screen, as it is from its start until the screen goes dark.
    `free_bytes` bounds what pushes and installs may write, None for any amount. `install_failure` is what the
    package manager answers instead of installing, such as INSTALL_FAILED_UPDATE_INCOMPATIBLE.
    `performance_switches`: how the fixed performance mode was switched so far.
    """

    properties: dict[str, str] = field(default_factory=lambda: dict(PIXEL_8))
    screen_on: bool = True
    unlocked_since_boot: bool = True
    packages: dict[str, InstalledPackage] = field(default_factory=dict)
    idle_whitelist: set[str] = field(default_factory=set)
    in_front: bool = False
    free_bytes: int | None = None
    install_failure: str | None = None
    performance_switches: list[bool] = field(default_factory=list)

    def go_dark(self) -> None:
        """The screen goes off, by itself or by its key."""
        self.screen_on = self.in_front = False
