"""LUTs on disk: `<root>/<device>/<space>/<variant>/v<N>/`. A version never changes once written."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from luts.format.errors import InvalidArtifactError, UsageError, shorten
from luts.format.files import (
    LOCK_FILE,
    data_folder,
    read_bytes,
    storage_error,
    storage_errors,
    sync_folder,
    write_read_only,
    write_text,
)
from luts.format.locks import one_at_a_time
from luts.format.lut import MAX_FILE_BYTES, META_FILE, Lut, decode, decode_meta, encode
from luts.format.provenance import ORIGIN_FILE, SIGNATURE_FILE, read_origin
from luts.format.schema import LutFile, LutMeta

VERSION = re.compile(r"v([1-9][0-9]{0,8})")

_ELSEWHERE = "set BLOCKTIME_LUTS to another folder"
"""Remedy where LUTs can't be written."""

PIN_FILE = "pinned.txt"
REMOVED_FILE = "removed.txt"

PACKAGED = Path(__file__).parents[1] / "data"
"""LUTs that are part of the package; they are only read."""

WORSE_FACTOR = 1.25
"""A version is reported as worse where its held-out error is more than this times the one before: two
profiles of one plan differ by as much, as the standard error of a MAPE over ten networks is 0.76 / sqrt(10) =
24 % of it."""


@dataclass(frozen=True, order=True)
class LutRef:
    """Folder of a LUT and its name, which `LutStore.load` takes. Version 0: a copy outside of a store."""

    device: str
    space: str
    variant: str
    version: int
    path: Path

    def __str__(self) -> str:
        """Return `device/space/variant/vN`."""
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """Name without the version."""
        return "/".join(self.parts[:3])

    @property
    def parts(self) -> tuple[str, ...]:
        """Device, space, variant and `vN`."""
        return (self.device, self.space, self.variant, f"v{self.version}")


def lut_store(first: Path | None = None, warn: Callable[[str], None] | None = None) -> LutStore:
    """Return the store of the user's LUTs, where new ones are written, and the package's.

    The user's folder is $BLOCKTIME_LUTS, else `luts` in the data folder; `first` is searched before both.
    """
    user = Path(os.environ.get("BLOCKTIME_LUTS") or data_folder() / "luts")
    return LutStore((first, user, PACKAGED) if first else (user, PACKAGED), warn)


def list_luts(first: Path | None = None) -> list[LutRef]:
    """List all LUTs by name and version; those under `first` hide LUTs of the same name elsewhere."""
    return lut_store(first).list()


def load_lut(name_or_path: str | Path | LutRef, first: Path | None = None) -> Lut:
    """Load a LUT and check its digests.

    Args:
        name_or_path: Its folder, `device/space/variant[/vN]`, or parts of that in order which name one LUT;
            without a version the pinned one, else the newest.
        first: Additional folder of LUTs, searched first.

    Raises:
        UsageError: no LUT, or several, have such a name; the message lists them.
        InvalidArtifactError: it is damaged.
    """
    return lut_store(first).load(name_or_path)


def read_lut(folder: Path) -> Lut:
    """Read the LUT in one folder, check its digests; raises InvalidArtifactError, which names the folder."""
    files = read_files(folder)
    try:
        return decode(files)
    except InvalidArtifactError as error:
        raise InvalidArtifactError(f"LUT in {folder}: {error}", code=error.code) from error


def read_files(folder: Path) -> dict[str, bytes]:
    """Read the four files of a LUT. Raises InvalidArtifactError: one is missing or larger than its limit."""
    return {name: read_bytes(folder / name, limit, "restore it") for name, limit in MAX_FILE_BYTES.items()}


def read_meta(folder: Path) -> LutFile:
    """Read the lut.json in a folder and check its digest. Raises InvalidArtifactError."""
    return decode_meta(read_bytes(folder / META_FILE, MAX_FILE_BYTES[META_FILE], "restore it"))


def digest_of(ref: LutRef) -> str:
    """Return the sha256 of a LUT's lut.json, which holds its files' digests; "" if it is unreadable."""
    try:
        content = read_bytes(ref.path / META_FILE, MAX_FILE_BYTES[META_FILE], "restore it")
    except InvalidArtifactError:
        return ""
    return hashlib.sha256(content).hexdigest()


def is_worse(meta: LutMeta, before: LutMeta) -> bool:
    """Return whether a LUT predicts held-out networks clearly worse than another; False if unknown."""
    if meta.heldout_error is None or before.heldout_error is None:
        return False
    return meta.heldout_error.mape > WORSE_FACTOR * before.heldout_error.mape


class LutStore:
    """LUTs under several root folders; new ones go to the first, the others are only read."""

    def __init__(self, roots: Sequence[Path], warn: Callable[[str], None] | None = None) -> None:
        """Open a store of LUTs in `device/space/variant/vN` under the roots, which need not exist.

        `warn` is called with one line about a LUT that is worse than the one before, unverified or not what
        its name means; a Python warning by default.
        """
        self.roots = tuple(roots)
        self._warn = warn or warnings.warn
        self._warned: set[str] = set()

    def list(self) -> list[LutRef]:
        """List all LUTs by name and version; of equal names the one under the first root."""
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
        """Write the next version, all or nothing, and return its folder. Raises StorageError."""
        return self.write_files(lut.meta, encode(lut))

    def write_once(self, lut: Lut) -> Path:
        """Return the version with exactly this LUT, which a killed or a parallel run wrote; else write the next."""
        files = encode(lut)
        digest = hashlib.sha256(files[META_FILE]).hexdigest()
        name = f"{lut.meta.device.name}/{lut.meta.space}/{lut.meta.variant}"
        root = self.roots[0]
        with storage_errors(f"LUT not written to {root}", _ELSEWHERE):
            root.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(root / LOCK_FILE):
                same = (ref.path for ref in self.list() if ref.name == name and digest_of(ref) == digest)
                return next(same, None) or self.write_files(lut.meta, files)

    def write_files(self, meta: LutMeta, files: Mapping[str, bytes]) -> Path:
        """Write the next version from a LUT's encoded files and what belongs next to them; see `write`."""
        variant_folder = self.roots[0] / meta.device.name / meta.space / meta.variant
        temporary: Path | None = None
        try:
            variant_folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=variant_folder))
            for name, content in files.items():
                write_read_only(temporary / name, content)
            temporary.chmod(0o755)
            path = self._publish(temporary, variant_folder)
        except OSError as error:
            raise storage_error(f"LUT not written to {variant_folder}", error, _ELSEWHERE) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        self._warn_about_new(_ref_of(path), meta)
        return path

    def _publish(self, temporary: Path, variant_folder: Path) -> Path:
        """Rename the finished folder to the next version over all roots, while other processes may do the same."""
        name = variant_folder.relative_to(self.roots[0]).as_posix()
        version = max((ref.version for ref in self.list() if ref.name == name), default=0) + 1
        while True:
            target = variant_folder / f"v{version}"
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                version += 1
                continue
            sync_folder(variant_folder)
            return target

    def _warn_about_new(self, written: LutRef, meta: LutMeta) -> None:
        """Warn where a new LUT's name means another version, or the LUT is worse than the version before."""
        try:
            if (pinned := self.pinned(written.name)) is not None and pinned != written.version:
                self.current(written.name)
                self._warn(
                    f"{written.name} still means v{pinned}, which is pinned; bench lut pin {written} changes that"
                )
                return
            before = self.before(written)
            if before is not None and is_worse(meta, before_meta := read_meta(before.path)):
                self._warn(
                    f"{written} has a held-out error of {_mape(meta)}, {before} one of {_mape(before_meta)}; "
                    f"to use that one: bench lut pin {before}"
                )
        except InvalidArtifactError as error:
            self._warn(str(error))

    def before(self, ref: LutRef) -> LutRef | None:
        """Return the version before this one, if there is any."""
        versions = [other for other in self.list() if other.name == ref.name and other.version < ref.version]
        return versions[-1] if versions else None

    def resolve(self, ref: str | Path | LutRef) -> LutRef:
        """Return the LUT that a path or a name means.

        `ref` is a folder, `device/space/variant[/vN]` (or `@vN`), or parts of such a name in order, such as
        `autovit-nano/v2` or `host`, if they fit one variant only. Without a version it means `current`.

        Raises UsageError: none or several fit; the message lists them.
        """
        if isinstance(ref, LutRef):
            return ref
        folder = Path(ref)
        if folder.name == META_FILE:
            folder = folder.parent
        if (folder / META_FILE).is_file():
            return _ref_of(folder)
        wanted = [part for part in str(ref).replace("@v", "/v").split("/") if part]
        known = self.list()
        fitting = [candidate for candidate in known if wanted and is_subsequence(wanted, candidate.parts)]
        if len(fitting) == 1:
            return fitting[0]
        names = sorted({candidate.name for candidate in (fitting or known)})
        if fitting and len(names) == 1:
            return self.current(names[0])
        if fitting:
            raise UsageError(f"LUT {ref} fits several: {shorten(names, 8)}; name one", code="ambiguous_lut")
        there = f"there are {shorten(names, 8)}" if names else "run bench profile first"
        raise UsageError(f"no LUT {ref}; {there}", code="unknown_lut")

    def current(self, name: str) -> LutRef:
        """Return the version that `device/space/variant` means: the pinned one, else the newest.

        A pulled LUT was measured on another unit of the device, so it counts only where nothing of that name
        was measured here, and an unverified one only where there is nothing else.

        Raises InvalidArtifactError: the pinned version does not exist, or the pin can't be read.
        """
        versions = {ref.version: ref for ref in self.list() if ref.name == name}
        if (pinned := self.pinned(name)) is not None:
            if pinned not in versions:
                raise InvalidArtifactError(
                    f"v{pinned} of {name} is pinned but missing; pin another (bench lut pin) or none "
                    f"(bench lut pin --off {name})",
                    code="pinned_version_missing",
                )
            return versions[pinned]
        origins = {version: read_origin(ref.path) for version, ref in versions.items()}
        own = {version for version, origin in origins.items() if origin is None}
        verified = {version for version, origin in origins.items() if origin and origin.verified}
        return versions[max(own or verified or versions)]

    def pinned(self, name: str) -> int | None:
        """Return the pinned version of `device/space/variant`, None without one.

        Raises InvalidArtifactError: the file of the pin is damaged.
        """
        for root in self.roots:
            path = root / name / PIN_FILE
            if not path.exists():
                continue
            content = read_bytes(path, 64, "pin again with bench lut pin").decode(errors="replace").strip()
            number = VERSION.fullmatch(content)
            if number is None:
                raise InvalidArtifactError(
                    f"{path} holds {content!r}, not a version; pin again with bench lut pin",
                    code="invalid_pin",
                )
            return int(number[1])
        return None

    def pin(self, ref: LutRef) -> None:
        """Make a version the one that its name means.

        Raises UsageError: the path is outside the store. Raises StorageError: the file system refuses.
        """
        write_text(self.roots[0] / self._listed(ref).name / PIN_FILE, f"v{ref.version}\n")

    def unpin(self, name: str) -> None:
        """Let `device/space/variant` mean its newest version again. Raises StorageError."""
        for root in self.roots:
            _delete(root / name / PIN_FILE)

    def remove(self, ref: LutRef) -> None:
        """Remove a version, and the pin on it. A note stays, so that no later LUT gets its number.

        Raises:
            UsageError: it is part of the package, or outside the store.
            StorageError: the file system refuses.
        """
        listed = self._listed(ref)
        if listed.path.is_relative_to(PACKAGED):
            raise UsageError(
                f"{ref} is part of the package and cannot be removed; bench lut pin makes its name mean another",
                code="packaged_lut",
            )
        pinned = self.pinned(listed.name)
        write_text(listed.path / REMOVED_FILE, f"removed {datetime.now(UTC):%Y-%m-%d}\n")
        for name in (META_FILE, *MAX_FILE_BYTES, ORIGIN_FILE, SIGNATURE_FILE):
            _delete(listed.path / name)
        if pinned == listed.version:
            self.unpin(listed.name)

    def _listed(self, ref: LutRef) -> LutRef:
        for known in self.list():
            if known.path.resolve() == ref.path.resolve():
                return known
        raise UsageError(
            f"{ref.path} is not in a folder of LUTs; take one that bench lut list shows",
            code="lut_outside_store",
        )

    def load(self, ref: str | Path | LutRef) -> Lut:
        """Load the LUT that `resolve` finds and check its digests; warn once about an unverified one."""
        found = self.resolve(ref)
        lut = read_lut(found.path)
        origin = read_origin(found.path)
        if origin is not None and not origin.verified and str(found) not in self._warned:
            self._warned.add(str(found))
            self._warn(f"{found} was pulled and is unverified; bench lut verify recomputes it")
        return lut


def is_subsequence(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether all wanted parts occur among `parts`, in order."""
    remaining = iter(parts)
    return all(part in remaining for part in wanted)


def _mape(meta: LutMeta) -> str:
    error = meta.heldout_error
    return f"{100 * error.mape:.2f} % on {error.models} networks" if error else "unknown"


def _ref_of(folder: Path) -> LutRef:
    parts = folder.resolve().parts[-4:]
    number = VERSION.fullmatch(parts[-1])
    if len(parts) == 4 and number is not None:
        return LutRef(parts[0], parts[1], parts[2], int(number[1]), folder)
    meta = read_lut(folder).meta
    return LutRef(meta.device.name, meta.space, meta.variant, 0, folder)


def _delete(path: Path) -> None:
    with storage_errors(f"{path} not removed"):
        path.unlink(missing_ok=True)
