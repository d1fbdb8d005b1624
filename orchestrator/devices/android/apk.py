"""The app's file on this computer, and when a phone gets it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.provenance import supplied
from orchestrator.devices.android import install
from orchestrator.devices.android.errors import NotInstalled
from orchestrator.devices.android.link import AdbLink

APK_VARIABLE = "BLOCKTIME_ANDROID_APP"

_BUILT = Path(__file__).parents[3] / "android_bench" / "app" / "build" / "outputs" / "apk" / "release"


@dataclass(frozen=True)
class AppFile:
    """An .apk, or None where there is none. One that was `asked_for` replaces any other on the phone; one that was
    merely found in the build folder is for phones without the app, or with one of another protocol.
    """

    path: Path | None
    asked_for: bool

    @classmethod
    def find(cls, path: Path | None = None) -> AppFile:
        """`path`, else BLOCKTIME_ANDROID_APP, else the signed release that was built here, else none.

        UsageError where a file that was asked for does not exist.
        """
        if path is None and os.environ.get(APK_VARIABLE):
            path = Path(os.environ[APK_VARIABLE])
        if path is not None:
            if not path.is_file():
                raise UsageError(
                    f"there is no app {path}: give the .apk that the build made, see {supplied('docs/android.md')}"
                )
            return cls(path, asked_for=True)
        built = [apk for apk in sorted(_BUILT.glob("*.apk")) if "unsigned" not in apk.name]
        return cls(built[0] if built else None, asked_for=False)

    def put_on(self, link: AdbLink) -> None:
        """Sees to it that the app is on the phone. NotInstalled where it is not and there is no file."""
        if install.find_installed(link) is None:
            if self.path is None:
                raise NotInstalled(
                    f"the blocktime app is not on {link.label}: build it ({supplied('docs/android.md')}) and name "
                    "it with --app FILE.apk"
                )
            install.install(link, self.path)
        elif self.path is not None and self.asked_for and not install.is_same(link, self.path):
            install.install(link, self.path)

    def replace_on(self, link: AdbLink) -> bool:
        """Installs this file in place of another app; False where the phone has it already, or there is none."""
        if self.path is None or install.is_same(link, self.path):
            return False
        install.install(link, self.path)
        return True
