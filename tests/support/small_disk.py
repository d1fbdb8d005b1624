"""A filesystem of a few MiB that can be full, or a limit on the size of files where none can be mounted."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_SIZE_BYTES = 8 << 20
_PAGE_BYTES = 4096


@cache
def can_mount() -> bool:
    """Return whether this process may mount a filesystem."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = _mount(Path(folder))
        if mounted:
            _unmount(Path(folder))
        return mounted


class SmallDisk:
    """A tmpfs at `folder`, which is created; where it can't be mounted, a limit on files of this process."""

    def __init__(self, folder: Path) -> None:
        """Mount it."""
        folder.mkdir()
        self._folder, self._filler = folder, folder / "filler"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._is_mounted = can_mount() and _mount(folder)

    def fill(self, file: Path, free_bytes: int) -> None:
        """Leave `free_bytes` of space: whole pages on a filesystem, else those that `file` may still grow by."""
        if not self._is_mounted:
            size = file.stat().st_size if file.exists() else 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + free_bytes, self._limits[1]))
            return
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(1 << 16))
        pages = free_bytes // _PAGE_BYTES
        os.truncate(self._filler, max(0, self._filler.stat().st_size - pages * _PAGE_BYTES))

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def close(self) -> None:
        """Unmount it."""
        self.free()
        if self._is_mounted:
            _unmount(self._folder)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES}", "blocktime-test", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unmount(folder: Path) -> None:
    """Unmount, though a file may still be open for a moment."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)
