"""The phone's own folders: /data and /sdcard live in a private folder of the machine that plays the phone."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.support.fakephone.system_server import Terminal

_OWN = ("data", "sdcard")
_MENTION = re.compile(rf"(?<![\w./-])/(?=(?:{'|'.join(_OWN)})(?:[^\w.-]|$))")


@dataclass(frozen=True)
class Folders:
    """`root` holds the phone's /data and /sdcard; nothing outside them can be reached by a path."""

    root: Path

    def create(self) -> None:
        for name in ("data/local/tmp", "data/app", "data/data", "sdcard"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def local(self, path: str) -> Path:
        """Where a path of the phone lies here. Raises PermissionError for what is not the phone's own."""
        parts = PurePosixPath(path).parts
        target = self.root.joinpath(*parts[1:]).resolve()
        allowed = [(self.root / name).resolve() for name in _OWN]
        if parts[:1] != ("/",) or not any(target.is_relative_to(folder) for folder in allowed):
            raise PermissionError(13, "Permission denied", path)
        return target

    def sha256sum(self, arguments: list[str], terminal: Terminal) -> int:
        """The command `sha256sum`, which gets paths that other commands told, so that none translates them."""
        path = arguments[-1]
        try:
            with self.local(path).open("rb") as file:
                return terminal.say(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}")
        except OSError as error:
            return terminal.fail(f"sha256sum: {path}: {error.strerror}")

    def translate(self, command: str) -> str:
        """A shell command in which the phone's own absolute paths are those of this machine."""
        return _MENTION.sub(f"{self.root}/", command)
