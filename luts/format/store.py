"""LUTs on disk: `<root>/<device>/<space>/<variant>/v<N>/`. A version never changes once written."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from luts.format.errors import InvalidArtifactError, UsageError, few
from luts.format.files import read_bytes, storage_error, sync_folder, write_read_only, write_text
from luts.format.lut import ENTRIES_FILE, MAX_FILE_BYTES, META_FILE, Lut, decode, decode_meta, encode
from luts.format.provenance import ORIGIN_FILE, SIGNATURE_FILE, read_origin
from luts.format.schema import HeldoutError, LutMeta

VERSION = re.compile(r"v([1-9][0-9]{0,8})")

PIN_FILE = "pinned.txt"
REMOVED_FILE = "removed.txt"

AS_GOOD = 1.25
"""A newer version is as good within a quarter of the lowest error: two profiles of one plan differ by as much, as
the standard error of a MAPE over ten networks is 0.76 / sqrt(10) = 24 % of it."""

_SPREAD = math.sqrt(math.pi / 2 - 1)
"""Standard deviation of the size of a normal error over its mean."""


@dataclass(frozen=True)
class Choice:
    """The version that a name means; `note` says why where that is neither the newest nor the pinned one."""

    version: int
    note: str = ""


@dataclass(frozen=True)
class _Build:
    """What a device ran when it was measured, and how; what is not known, or as usual, is ""."""

    os: str
    os_build: str
    runtime: str
    how: str

    def fits(self, other: _Build) -> bool:
        """Whether both may be the same."""
        pairs = zip(astuple(self)[:-1], astuple(other)[:-1], strict=True)
        unlike = any(mine != theirs and mine and theirs for mine, theirs in pairs)
        return self.how == other.how and not unlike

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"{self.os} {self.os_build}".strip(), self.runtime, self.how)))


@dataclass(frozen=True)
class _Quality:
    build: _Build
    created: str
    keys: frozenset[str]
    heldout: HeldoutError | None

    @property
    def error(self) -> float:
        """MAPE and a standard error of it, so that few held-out networks that came out well by luck do not count as
        many; infinite where none was held out."""
        if self.heldout is None:
            return math.inf
        return self.heldout.mape * (1 + _SPREAD / math.sqrt(self.heldout.models))

    def __str__(self) -> str:
        if self.heldout is None:
            return "no held-out network"
        return f"MAPE {100 * self.heldout.mape:.2f} % on {self.heldout.models} held-out networks"


def choose(folders: Mapping[int, Path], pinned: int | None) -> Choice:
    """The version that is meant by a name without one.

    Args:
        folders: Of all versions; not empty.
        pinned: The version that was pinned.

    Raises:
        InvalidArtifactError: the pinned version is not there.
    """
    newest = max(folders)
    if pinned is not None:
        if pinned not in folders:
            raise InvalidArtifactError(
                f"v{pinned} is pinned, but not there; pin another (bench lut pin) or none (bench lut pin --off)"
            )
        return Choice(pinned)
    if len(folders) == 1:
        return Choice(newest)
    known = {version: _quality(folder) for version, folder in folders.items()}
    rated = {version: quality for version, quality in known.items() if quality is not None}
    if not rated:
        return Choice(newest)
    build = max(rated.items(), key=lambda item: (item[1].created, item[0]))[1].build
    current = {version: quality for version, quality in rated.items() if quality.build.fits(build)}
    taken, ever = _best(current), _best(rated)
    if taken != newest:
        return Choice(
            taken, f"v{taken} is taken: v{newest} is newer and {_fault(newest, rated, build, taken)}"
        )
    if ever in current:
        return Choice(taken)
    return Choice(
        taken,
        f"v{taken} is taken ({rated[taken]}), since it is of {build}: "
        f"v{ever} predicts better ({rated[ever]}), but is of {rated[ever].build}",
    )


def _best(rated: Mapping[int, _Quality]) -> int:
    """The newest version that is as good as any which knows every block of the newest."""
    keys = rated[max(rated)].keys
    equals = {version: quality for version, quality in rated.items() if quality.keys >= keys}
    lowest = min(quality.error for quality in equals.values())
    return max(version for version, quality in equals.items() if quality.error <= AS_GOOD * lowest)


def _fault(version: int, rated: Mapping[int, _Quality], build: _Build, taken: int) -> str:
    """Why a version is not taken."""
    if version not in rated:
        return "is broken"
    told = rated[version]
    if not told.build.fits(build):
        why = "of an older build" if told.build.how == build.how else "measured otherwise"
        return f"{why}, {told.build}; v{taken} is of {rated[taken].build}"
    return f"is poorer ({told}; v{taken}: {rated[taken]})"


def _how(meta: LutMeta) -> str:
    """What makes its milliseconds others than those of calls back to back with the clocks as they are."""
    pace_us = float(meta.policy.get("pace_us", 0))
    paced = f"{round(1e6 / pace_us, 1):g} calls a second" if pace_us else ""
    return ", ".join(filter(None, (paced, "fixed clocks" if meta.fixed_performance else "")))


def _quality(folder: Path) -> _Quality | None:
    """None where the files can't be read: who loads that version is told why."""
    try:
        meta = decode_meta(read_bytes(folder / META_FILE, MAX_FILE_BYTES[META_FILE], "restore it"))
        entries = read_bytes(folder / ENTRIES_FILE, MAX_FILE_BYTES[ENTRIES_FILE], "restore it").decode()
        rows = csv.DictReader(io.StringIO(entries, newline=""))
        build = _Build(meta.device.os, meta.device.os_build, meta.versions.runtime, _how(meta))
        return _Quality(build, meta.created, frozenset(row["key"] for row in rows), meta.heldout_error)
    except (InvalidArtifactError, ValueError, KeyError, csv.Error):
        return None


def pinned_version(shelves: Sequence[Path]) -> int | None:
    """The version pinned in the first of the folders that pins one.

    Raises:
        InvalidArtifactError: the file says something else.
    """
    for shelf in shelves:
        path = shelf / PIN_FILE
        if not path.exists():
            continue
        content = read_bytes(path, 64, "pin again with bench lut pin").decode(errors="replace").strip()
        number = VERSION.fullmatch(content)
        if number is None:
            raise InvalidArtifactError(
                f"{path} holds {content!r}, not a version; pin again with bench lut pin"
            )
        return int(number[1])
    return None


def pin(shelf: Path, version: int) -> None:
    """Pin a version. Raises StorageError."""
    write_text(shelf / PIN_FILE, f"v{version}\n")


def unpin(shelf: Path) -> None:
    """Forget what is pinned in the folder. Raises StorageError."""
    _delete(shelf / PIN_FILE)


def remove(folder: Path) -> None:
    """Remove a version, lut.json first, so that it is there whole or not at all.

    A line stays in its place: no later LUT gets its number, which results may name. Raises StorageError.
    """
    write_text(folder / REMOVED_FILE, f"removed {datetime.now(UTC):%Y-%m-%d}\n")
    for name in (*MAX_FILE_BYTES, ORIGIN_FILE, SIGNATURE_FILE):
        _delete(folder / name)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(f"{path} not removed", error) from error


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
