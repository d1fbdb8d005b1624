"""LUTs on disk: `<root>/<device>/<space>/<variant>/v<N>/`. A version never changes once written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.errors import InvalidArtifactError, StorageError, UsageError
from luts.files import MAX_FILE_BYTES, META_FILE, decode, encode
from luts.lut import Lut

_VERSION = re.compile(r"v([1-9][0-9]{0,8})")


@dataclass(frozen=True, order=True)
class LutRef:
    """Where a LUT lies; `str()` is the name that `LutStore.load` takes. Version 0: a copy outside of a store."""

    device: str
    space: str
    variant: str
    version: int
    path: Path

    def __str__(self) -> str:
        return f"{self.device}/{self.space}/{self.variant}/v{self.version}"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.device, self.space, self.variant, f"v{self.version}")


def default_roots(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the user's LUTs go (first) and those that came with the package.

    BLOCKTIME_LUTS, else $XDG_DATA_HOME/blocktime/luts, else ~/.local/share/blocktime/luts.
    """
    if environment.get("BLOCKTIME_LUTS"):
        user = Path(environment["BLOCKTIME_LUTS"])
    elif environment.get("XDG_DATA_HOME"):
        user = Path(environment["XDG_DATA_HOME"]) / "blocktime" / "luts"
    else:
        user = Path.home() / ".local" / "share" / "blocktime" / "luts"
    return user, Path(__file__).parent / "data"


def read_lut(folder: Path) -> Lut:
    """The LUT in one folder, its digests checked. Raises InvalidArtifactError."""
    return decode(read_files(folder))


def read_files(folder: Path) -> dict[str, bytes]:
    """The four files of a LUT, none larger than its bound. Raises InvalidArtifactError."""
    files = {}
    for name, limit in MAX_FILE_BYTES.items():
        try:
            with (folder / name).open("rb") as stream:
                files[name] = stream.read(limit + 1)
        except OSError as error:
            raise InvalidArtifactError(
                f"{folder / name} can't be read: {error.strerror}; restore it"
            ) from error
        if len(files[name]) > limit:
            raise InvalidArtifactError(f"{folder / name} is larger than {limit} bytes; it is no LUT file")
    return files


class LutStore:
    """LUTs under several roots; the first is where new ones go, the others are only read."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)

    def list(self) -> list[LutRef]:
        """All LUTs in order of name and version; of equal names the first root's is listed."""
        found: dict[str, LutRef] = {}
        for root in self.roots:
            for meta in root.glob(f"*/*/*/*/{META_FILE}"):
                device, space, variant, version = meta.relative_to(root).parts[:4]
                number = _VERSION.fullmatch(version)
                if number is not None:
                    ref = LutRef(device, space, variant, int(number[1]), meta.parent)
                    found.setdefault(str(ref), ref)
        return sorted(found.values())

    def write(self, lut: Lut) -> Path:
        """Writes the next version, whole or not at all, and returns its folder. Raises StorageError."""
        meta = lut.meta
        shelf = self.roots[0] / meta.device.name / meta.space / meta.variant
        files = encode(lut)
        temporary: Path | None = None
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=shelf))
            for name, content in files.items():
                _write_durably(temporary / name, content)
            temporary.chmod(0o755)
            return self._publish(temporary, shelf, meta.device.name, meta.space, meta.variant)
        except OSError as error:
            raise StorageError(
                f"LUT not written to {shelf}: {error.strerror}; "
                "free space or set BLOCKTIME_LUTS to another folder"
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path, shelf: Path, device: str, space: str, variant: str) -> Path:
        """Renames the finished folder to the first free version above every root's; others may do the
        same."""
        taken = [ref.version for ref in self.list() if ref.parts[:3] == (device, space, variant)]
        version = max(taken, default=0) + 1
        while True:
            target = shelf / f"v{version}"
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                version += 1
                continue
            _sync_folder(shelf)
            return target

    def resolve(self, ref: str | Path) -> LutRef:
        """The LUT of a path, a name `device/space/variant[/vN]` (the latest version if left out), or any
        parts of a name in order, such as `autovit-nano/v2` or `host`, if they fit one variant only.

        Raises UsageError listing what there is.
        """
        folder = Path(ref)
        if folder.name == META_FILE:
            folder = folder.parent
        if (folder / META_FILE).is_file():
            return _ref_of(folder)
        wanted = [part for part in str(ref).split("/") if part]
        known = self.list()
        fitting = [candidate for candidate in known if wanted and _is_subsequence(wanted, candidate.parts)]
        shelves = sorted({candidate.parts[:3] for candidate in fitting})
        if len(shelves) == 1:
            return fitting[-1]
        names = sorted({"/".join(candidate.parts[:3]) for candidate in (fitting or known)})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        if fitting:
            raise UsageError(f"LUT {ref} fits several: {shown}; name one")
        raise UsageError(
            f"no LUT {ref}; there are {shown}" if names else f"no LUT {ref}; run bench profile first"
        )

    def load(self, ref: str | Path) -> Lut:
        """The LUT `resolve` finds, its digests checked."""
        return read_lut(self.resolve(ref).path)


def _ref_of(folder: Path) -> LutRef:
    parts = folder.resolve().parts[-4:]
    number = _VERSION.fullmatch(parts[-1])
    if len(parts) == 4 and number is not None:
        return LutRef(parts[0], parts[1], parts[2], int(number[1]), folder)
    meta = read_lut(folder).meta
    return LutRef(meta.device.name, meta.space, meta.variant, 0, folder)


def _is_subsequence(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    remaining = iter(parts)
    return all(part in remaining for part in wanted)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o444)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
