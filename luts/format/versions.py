"""Versions of one LUT: which of them its name alone means, which is pinned, and how one is removed.

A name without a version means the pinned one, else the one that predicts best: the newest of those whose held-out
error is as good as the lowest. Compared are versions of the newest build of operating system and runtime, since
no older LUT knows what an update changed, measured at the pace and with the clocks of the newest, that know every
block of the newest of them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from luts.format.atomic_file import storage_error, write_text
from luts.format.codec import ENTRIES_FILE, MAX_FILE_BYTES, META_FILE, decode_meta
from luts.format.errors import InvalidArtifactError
from luts.format.json_file import read_bytes
from luts.format.origin import ORIGIN_FILE, SIGNATURE_FILE
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
