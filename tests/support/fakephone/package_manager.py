"""`pm`, and `cmd package`, which is the same."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.support.fakephone.apk import Apk, InvalidApk
from tests.support.fakephone.folders import Folders
from tests.support.fakephone.phone_state import InstalledPackage, PhoneState
from tests.support.fakephone.system_server import Terminal

_COPY_BYTES = 1 << 16
# Options of `install` and `uninstall` that take no value and change nothing here.
_FLAGS = {"-r", "-t", "-g", "-d", "--user", "0", "-k"}


class InstallFailed(Exception):
    """The message is what stands between the brackets of `Failure [...]`."""


class PackageManager:
    """Installs APKs into /data/app and answers questions about them; `stop` ends a package's process."""

    def __init__(self, state: PhoneState, folders: Folders, stop: Callable[[str], None]) -> None:
        self._state = state
        self._folders = folders
        self._stop = stop

    def run(self, arguments: list[str], terminal: Terminal) -> int:
        """The command `pm`."""
        name, *rest = arguments or [""]
        subcommand = {
            "path": self._path,
            "install": self._install,
            "uninstall": self._uninstall,
            "grant": self._grant,
            "compile": self._compile,
        }.get(name)
        if subcommand is None:
            return terminal.fail(f"Unknown command: {name}", 255)
        return subcommand(rest, terminal)

    def install(self, path: Path) -> InstalledPackage:
        """Installs or replaces. Raises InstallFailed."""
        state = self._state
        if state.install_failure is not None:
            raise InstallFailed(state.install_failure)
        if state.free_bytes is not None and path.stat().st_size > state.free_bytes:
            raise InstallFailed(
                "INSTALL_FAILED_INSUFFICIENT_STORAGE: Failed to override installation location"
            )
        try:
            apk = Apk.read(path)
        except InvalidApk as error:
            raise InstallFailed(
                f"INSTALL_PARSE_FAILED_NOT_APK: Failed to parse {path.name}: {error}"
            ) from None
        old = state.packages.get(apk.package)
        if old is not None and apk.version_code < old.apk.version_code:
            raise InstallFailed(
                "INSTALL_FAILED_VERSION_DOWNGRADE: Downgrade detected: Update version code "
                f"{apk.version_code} is older than current {old.apk.version_code}"
            )
        self._stop(apk.package)
        if old is not None:
            shutil.rmtree(old.path.parent)
        home = self._folders.root / "data/app" / f"{apk.package}-{uuid.uuid4().hex[:22]}=="
        home.mkdir()
        installed = InstalledPackage(apk, home / "base.apk", old.granted if old else set())
        shutil.copyfile(path, installed.path)
        state.packages[apk.package] = installed
        return installed

    def _path(self, arguments: list[str], terminal: Terminal) -> int:
        installed = self._state.packages.get(arguments[-1])
        return 1 if installed is None else terminal.say(f"package:{self._phone_path(installed)}")

    def _install(self, arguments: list[str], terminal: Terminal) -> int:
        rest = list(arguments)
        size: int | None = None
        if "-S" in rest:
            at = rest.index("-S")
            size = int(rest[at + 1])
            del rest[at : at + 2]
        paths = [argument for argument in rest if argument not in _FLAGS]
        staged = self._folders.root / f"data/app/vmdl{uuid.uuid4().int % 10**9}.tmp"
        try:
            if size is not None:
                self._stage(staged, size, terminal)
                self.install(staged)
            elif not (source := self._source(paths)).is_file():
                return terminal.fail(f"Error: Unable to open file: {paths[0]}", 255)
            else:
                self.install(source)
        except InstallFailed as failure:
            terminal.say(f"Failure [{failure}]")
            return 1
        finally:
            staged.unlink(missing_ok=True)
        return terminal.say("Success")

    def _source(self, paths: list[str]) -> Path:
        """The APK that a shell command names; its path is already this machine's."""
        path = Path(paths[0])
        return path if path.is_relative_to(self._folders.root) else self._folders.local(str(path))

    def _stage(self, staged: Path, size: int, terminal: Terminal) -> None:
        """Reads an APK of `size` bytes from stdin, as `adb install` streams it."""
        with staged.open("wb") as file:
            while size:
                part = terminal.stdin.read(min(size, _COPY_BYTES))
                if not part:
                    raise InstallFailed("INSTALL_FAILED_INVALID_APK: stream ended early")
                file.write(part)
                size -= len(part)

    def _uninstall(self, arguments: list[str], terminal: Terminal) -> int:
        name = arguments[-1]
        installed = self._state.packages.pop(name, None)
        if installed is None:
            terminal.say("Failure [DELETE_FAILED_INTERNAL_ERROR]")
            return 1
        self._stop(name)
        shutil.rmtree(installed.path.parent)
        shutil.rmtree(self._folders.root / "data/data" / name, ignore_errors=True)
        return terminal.say("Success")

    def _grant(self, arguments: list[str], terminal: Terminal) -> int:
        name, permission = arguments[-2:]
        installed = self._state.packages.get(name)
        if installed is None:
            return terminal.fail(
                "\nException occurred while executing 'grant':\n"
                f"java.lang.IllegalArgumentException: Unknown package: {name}",
                255,
            )
        installed.granted.add(permission)
        return 0

    def _compile(self, arguments: list[str], terminal: Terminal) -> int:
        installed = self._state.packages.get(arguments[-1])
        if installed is None:
            return terminal.fail(f"Failure: package {arguments[-1]} could not be compiled", 1)
        installed.compiler_filter = arguments[arguments.index("-m") + 1]
        return terminal.say("Success")

    def _phone_path(self, installed: InstalledPackage) -> str:
        return f"/{installed.path.relative_to(self._folders.root)}"
