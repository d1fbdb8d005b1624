"""LUTs on disk: `<root>/<device>/<space>/<variant>/v<N>/`. A version never changes once written."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.atomic_file import storage_error, sync_folder, write_read_only
from luts.format.codec import MAX_FILE_BYTES, META_FILE, decode, encode
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_bytes
from luts.format.lut import Lut
from luts.format.messages import few
from luts.format.origin import read_origin
from luts.format.schema import LutMeta
from luts.format.versions import VERSION, choose, pin, pinned_version, remove, unpin

PACKAGED = Path(__file__).parents[1] / "data"
"""LUTs that came with the package; they are only read."""


@dataclass(frozen=True, order=True)
class LutRef:
    """Where a LUT lies; `str()` is the name that `LutStore.load` takes. Version 0: a copy outside of a store."""

    device: str
    space: str
    variant: str
    version: int
    path: Path

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """Without the version."""
        return "/".join(self.parts[:3])

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
    return user, PACKAGED


def lut_store(first: Path | None = None, tell: Callable[[str], None] | None = None) -> LutStore:
    """The user's LUTs and those that came with the package; `first` goes before both."""
    roots = default_roots(os.environ)
    return LutStore((first, *roots) if first else roots, tell)


def list_luts(first: Path | None = None) -> list[LutRef]:
    """All LUTs, in order of name and version; those under `first` go before the user's and the package's."""
    return lut_store(first).list()


def load_lut(name_or_path: str | Path | LutRef, first: Path | None = None) -> Lut:
    """A LUT, its digests checked.

    Args:
        name_or_path: Its folder, `device/space/variant[/vN]`, or any parts of that in order which name one LUT;
            without a version the pinned one, else the one that predicts best.
        first: A further folder of LUTs, looked at first.

    Raises:
        UsageError: no LUT, or several, have such a name; lists them.
        InvalidArtifactError: it is damaged.
    """
    return lut_store(first).load(name_or_path)


def read_lut(folder: Path) -> Lut:
    """The LUT in one folder, its digests checked. Raises InvalidArtifactError, which names the folder."""
    files = read_files(folder)
    try:
        return decode(files)
    except InvalidArtifactError as error:
        raise InvalidArtifactError(f"LUT in {folder}: {error}") from error


def read_files(folder: Path) -> dict[str, bytes]:
    """The four files of a LUT, none larger than its bound. Raises InvalidArtifactError."""
    return {name: read_bytes(folder / name, limit, "restore it") for name, limit in MAX_FILE_BYTES.items()}


def digest_of(ref: LutRef) -> str:
    """sha256 of a LUT's lut.json, which has those of its other files; "" where it can't be read."""
    try:
        content = read_bytes(ref.path / META_FILE, MAX_FILE_BYTES[META_FILE], "restore it")
    except InvalidArtifactError:
        return ""
    return hashlib.sha256(content).hexdigest()


class LutStore:
    """LUTs under several roots; the first is where new ones go, the others are only read.

    Args:
        roots: Folders.
        tell: Told, once for each name, where a name does not mean its newest version, or a better one is of a build
            from before an update; a Python warning by default.
    """

    def __init__(self, roots: Sequence[Path], tell: Callable[[str], None] | None = None) -> None:
        self.roots = tuple(roots)
        self._tell = tell or warnings.warn
        self._told: set[str] = set()

    def list(self) -> list[LutRef]:
        """All LUTs in order of name and version; of equal names the first root's is listed."""
        by_name: dict[str, LutRef] = {}
        for root in self.roots:
            for meta in root.glob(f"*/*/*/*/{META_FILE}"):
                device, space, variant, version = meta.relative_to(root).parts[:4]
                number = VERSION.fullmatch(version)
                if number is not None:
                    ref = LutRef(device, space, variant, int(number[1]), meta.parent)
                    by_name.setdefault(str(ref), ref)
        return sorted(by_name.values())

    def write(self, lut: Lut) -> Path:
        """Writes the next version, whole or not at all, and returns its folder. Raises StorageError."""
        return self.write_files(lut.meta, encode(lut))

    def write_files(self, meta: LutMeta, files: Mapping[str, bytes]) -> Path:
        """The same of a LUT's encoded files, byte by byte, and of what stands beside them."""
        shelf = self.roots[0] / meta.device.name / meta.space / meta.variant
        temporary: Path | None = None
        try:
            shelf.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=shelf))
            for name, content in files.items():
                write_read_only(temporary / name, content)
            temporary.chmod(0o755)
            path = self._publish(temporary, shelf, meta.device.name, meta.space, meta.variant)
        except OSError as error:
            raise storage_error(
                f"LUT not written to {shelf}", error, "set BLOCKTIME_LUTS to another folder"
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        self._tell_unless_taken(_ref_of(path))
        return path

    def _tell_unless_taken(self, written: LutRef) -> None:
        try:
            taken = self.taken(written.name)
        except InvalidArtifactError as error:
            self._tell(str(error))
        else:
            if self.pinned(written.name) == taken.version != written.version:
                self._tell(f"{written.name} goes on meaning v{taken.version}, which is pinned")

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
            sync_folder(shelf)
            return target

    def resolve(self, ref: str | Path | LutRef) -> LutRef:
        """The LUT of a path, a name `device/space/variant[/vN]` (the one `taken` if left out), or any
        parts of a name in order, such as `autovit-nano/v2` or `host`, if they fit one variant only.

        Raises UsageError listing what there is.
        """
        if isinstance(ref, LutRef):
            return ref
        folder = Path(ref)
        if folder.name == META_FILE:
            folder = folder.parent
        if (folder / META_FILE).is_file():
            return _ref_of(folder)
        wanted = [part for part in str(ref).split("/") if part]
        known = self.list()
        fitting = [candidate for candidate in known if wanted and _is_subsequence(wanted, candidate.parts)]
        if len(fitting) == 1:
            return fitting[0]
        names = sorted({candidate.name for candidate in (fitting or known)})
        if fitting and len(names) == 1:
            return self.taken(names[0])
        shown = few(names, 8)
        if fitting:
            raise UsageError(f"LUT {ref} fits several: {shown}; name one")
        raise UsageError(
            f"no LUT {ref}; there are {shown}" if names else f"no LUT {ref}; run bench profile first"
        )

    def taken(self, name: str) -> LutRef:
        """The version that `device/space/variant` means: the pinned one, else the one that predicts best.

        What was pulled is of another unit: it is only meant where it is pinned, or nothing of that name was made
        here; what is unverified, where there is nothing else.
        """
        versions = {ref.version: ref for ref in self.list() if ref.name == name}
        if (pinned := self.pinned(name)) is None:
            origins = {version: read_origin(ref.path) for version, ref in versions.items()}
            own = {version for version, origin in origins.items() if origin is None}
            known = own or {version for version, origin in origins.items() if origin and origin.verified}
            versions = {version: versions[version] for version in known or versions}
        choice = choose({version: ref.path for version, ref in versions.items()}, pinned)
        if choice.note and name not in self._told:
            self._told.add(name)
            self._tell(f"{name}: {choice.note}; vN names another, bench lut pin fixes one")
        return versions[choice.version]

    def pinned(self, name: str) -> int | None:
        """The version of `device/space/variant` that is pinned."""
        return pinned_version([root / name for root in self.roots])

    def pin(self, ref: LutRef) -> None:
        """Make a version the one that its name means.

        Raises:
            UsageError: it lies outside of the store.
            StorageError: the file system refuses.
        """
        pin(self.roots[0] / self._listed(ref).name, ref.version)

    def unpin(self, name: str) -> None:
        """Let `device/space/variant` mean the version that predicts best again. Raises StorageError."""
        for root in self.roots:
            unpin(root / name)

    def remove(self, ref: LutRef) -> None:
        """Remove a version, and the pin on it.

        Raises:
            UsageError: it came with the package, or lies outside of the store.
            StorageError: the file system refuses.
        """
        listed = self._listed(ref)
        if listed.path.is_relative_to(PACKAGED):
            raise UsageError(
                f"{ref} came with the package and stays; bench lut pin makes its name mean another"
            )
        pinned = self.pinned(listed.name)
        remove(listed.path)
        if pinned == listed.version:
            self.unpin(listed.name)

    def _listed(self, ref: LutRef) -> LutRef:
        for known in self.list():
            if known.path.resolve() == ref.path.resolve():
                return known
        raise UsageError(f"{ref.path} is not in a folder of LUTs; take one that bench lut list shows")

    def load(self, ref: str | Path | LutRef) -> Lut:
        """The LUT `resolve` finds, its digests checked; tells where one that was pulled is unverified."""
        found = self.resolve(ref)
        lut = read_lut(found.path)
        if _unverified(found) and str(found) not in self._told:
            self._told.add(str(found))
            self._tell(f"{found} was pulled and is unverified; bench lut verify recomputes it")
        return lut


def _ref_of(folder: Path) -> LutRef:
    parts = folder.resolve().parts[-4:]
    number = VERSION.fullmatch(parts[-1])
    if len(parts) == 4 and number is not None:
        return LutRef(parts[0], parts[1], parts[2], int(number[1]), folder)
    meta = read_lut(folder).meta
    return LutRef(meta.device.name, meta.space, meta.variant, 0, folder)


def _unverified(ref: LutRef) -> bool:
    origin = read_origin(ref.path)
    return origin is not None and not origin.verified


def _is_subsequence(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    remaining = iter(parts)
    return all(part in remaining for part in wanted)
