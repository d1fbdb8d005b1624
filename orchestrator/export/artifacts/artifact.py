"""Exported models: their files, their reports, and the cache that stores them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.files import DAMAGED_ZIP, cache_folder, open_zip, storage_error, storage_errors
from luts.format.schema import FrozenModel
from orchestrator.export.artifacts.spec import ExportSpec

RELATIVE_TOLERANCE = 1e-4
"""Sums in another order change the outputs of our fp32 networks by under 1e-6 of their scale; timm's may be
deeper.
"""

_COARSENESS = {"fp32": 1.0, "fp16": 100.0, "int8": 5000.0, "mixed": 5000.0}
"""How many times the tolerance of fp32 a precision may have. Rounding to fp16 keeps 11 bits, to int8 seven,
of each weight and activation, and errors add up over tens of layers; a wrong graph is off by about the
output's scale.
"""


def allowed_error(precision: str, tolerance: float = RELATIVE_TOLERANCE) -> float:
    """Return the largest relative error of a precision if fp32 may have `tolerance`."""
    return tolerance * _COARSENESS[precision]


MAX_OPERATORS = 4096
"""With more kinds of operators than this, a file is not a report."""

MAX_REASON = 4096
"""Longest reason in a report, in characters."""

OpCounts = Annotated[tuple[tuple[str, int], ...], Field(max_length=MAX_OPERATORS)]


class Report(FrozenModel):
    """Result of lowering and checking a model.

    Attributes:
        delegates: Subgraphs of a delegate (0 for portable, ONNX and LiteRT; 1 for a Core ML package).
        operators: Operators outside the delegates and their counts; for a Core ML package all of its
            operators, since the placement is only known on the device.
        max_abs_error: Largest difference to PyTorch eager; None if the model cannot run on the host. A Core
            ML package does not run there but is evaluated (`orchestrator.export.lower.coreml`), unless it has
            operators that the evaluation does not support.
        max_relative_error: The same relative to the output's largest absolute value.
        tolerance: The relative error above which the export is refused.
        export_s: Seconds of capturing, lowering and checking.
        made: `lowered` whole, `spliced` from fragments of other lowerings (`orchestrator.export.reuse`), or
            lowered `plain`: without our rewrites, with which it could not be exported.
        plain_because: For a plain one, what was wrong with the rewritten one.
    """

    delegates: int = Field(ge=0)
    operators: OpCounts
    max_abs_error: float | None = Field(ge=0)
    max_relative_error: float | None = Field(ge=0)
    tolerance: float = Field(gt=0)
    export_s: float = Field(ge=0)
    made: Literal["lowered", "spliced", "plain"] = "lowered"
    plain_because: Annotated[str, Field(max_length=MAX_REASON)] = ""


class Artifact(FrozenModel):
    """A model in the cache with the sha256 and size of its file, for Core ML a zip of one `.mlpackage`.

    After `deliver`, `path` is the delivered file, for Core ML the unpacked folder.
    """

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    payload_bytes: int = Field(gt=0)
    spec: ExportSpec
    cache_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    report: Report

    def within(self, tolerance: float) -> bool:
        """Return whether its error, if known, is allowed by `tolerance`."""
        return (self.report.max_relative_error or 0.0) <= allowed_error(self.spec.precision, tolerance)

    @property
    def delegates(self) -> int | None:
        """Subgraphs of a delegate; None for other runtimes than ExecuTorch, which decide that at load."""
        return self.report.delegates if self.spec.runtime == "executorch" else None

    @property
    def outside(self) -> dict[str, int] | None:
        """Operators outside the delegates with their counts; None for other runtimes than ExecuTorch."""
        return dict(self.report.operators) if self.spec.runtime == "executorch" else None

    @property
    def suffix(self) -> str:
        """Suffix of the delivered model: `.pte`, or `.mlpackage` for a folder."""
        return ".mlpackage" if self.spec.runtime == "coreml" else self.path.suffix


PACKED_SUFFIX = ".mlpackage.zip"
MAX_ENTRIES = 4096
MAX_UNPACKED_BYTES = 2 << 30
"""Limits of PROTOCOL.md."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can store."""
_PLAIN_FILE = 0o100644 << 16
_MADE_ON_UNIX = 3


def pack(package: Path, target: Path) -> None:
    """Write a folder and all files below it, in order of name, to a zip at `target`; raises OSError."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in package.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), _EPOCH)
            entry.external_attr, entry.create_system = _PLAIN_FILE, _MADE_ON_UNIX
            archive.writestr(entry, path.read_bytes())


def check_package(package: Path) -> None:
    """Raise InvalidArtifactError if a folder is not a Core ML package, or has more files than an agent accepts."""
    if package.suffix != ".mlpackage" or not (package / "Manifest.json").is_file():
        raise InvalidArtifactError(
            f"{package} is a folder but not an .mlpackage with its Manifest.json; give a .pte file or a package",
            code="not_a_package",
        )
    count = sum(path.is_file() for path in package.rglob("*"))
    if count > MAX_ENTRIES:
        raise InvalidArtifactError(
            f"{package} has {count} files, an agent takes {MAX_ENTRIES}", code="too_many_files"
        )


def deliver(source: Path, target: Path) -> Path:
    """Copy a model to `target`, replacing it; a packed Core ML package becomes a folder unless `target` is a zip.

    Raises:
        InvalidArtifactError: `source` is not a zip of one package, or too large.
        StorageError: `target` cannot be written.
    """
    with storage_errors(f"cannot write {target}", "choose another --output"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.name.endswith(PACKED_SUFFIX) and target.suffix != ".zip":
            _unpack(source, target)
        else:
            shutil.copyfile(source, target)
    return target


def _unpack(source: Path, target: Path) -> None:
    try:
        with open_zip(source) as archive:
            entries = archive.infolist()
            places = {entry.filename: Path(entry.filename).parts for entry in entries}
            if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
                raise InvalidArtifactError(
                    f"{source}: over {MAX_ENTRIES} files or 2 GiB; is this the right file?",
                    code="too_many_files",
                )
            if any(len(parts) < 2 or ".." in parts or parts[0] == "/" for parts in places.values()):
                raise InvalidArtifactError(
                    f"{source}: not a zip of one .mlpackage; export it again", code="not_a_package"
                )
            shutil.rmtree(target, ignore_errors=True)
            for entry in entries:
                place = target.joinpath(*places[entry.filename][1:])
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(entry))
    except DAMAGED_ZIP as error:
        why = str(error) or "it ends too early"
        raise InvalidArtifactError(
            f"{source}: not a zip archive ({why}); export it again", code="invalid_file"
        ) from error


MAX_RECORD_BYTES = 1 << 20
"""Largest report that is read; a real one has a few KiB."""

STALE_S = 24 * 3600
"""Age after which an unfinished entry belongs to a process that died."""

_SUFFIX = {
    "executorch": "model.pte",
    "coreml": f"model{PACKED_SUFFIX}",
    "onnx": "model.onnx",
    "litert": "model.tflite",
}


def default_root() -> Path:
    """Return $BLOCKTIME_CACHE, else the user's cache folder."""
    named = os.environ.get("BLOCKTIME_CACHE")
    return Path(named).expanduser() if named else cache_folder()


class ArtifactCache:
    """Exported models by cache key."""

    def __init__(self, root: Path | None = None):
        """Open the cache in a folder; default: the user's."""
        self.root = root or default_root()
        self.models = self.root / "models"
        self.pending = self.root / "pending"

    @property
    def fragments(self) -> Path:
        """Folder of fragments that later exports reuse (`orchestrator.export.reuse`)."""
        return self.root / "fragments"

    def get(self, spec: ExportSpec) -> Artifact | None:
        """Return the model of a spec, its bytes verified; None if it is missing or damaged."""
        entry = self.models / spec.cache_key
        try:
            with (entry / "record.json").open("rb") as file:
                document = json.loads(file.read(MAX_RECORD_BYTES))
            artifact = Artifact(path=entry / _SUFFIX[spec.runtime], spec=spec, **document)
            sha256, size = digest(artifact.path)
        except (OSError, ValueError, TypeError, ValidationError):
            return None
        if (artifact.sha256, artifact.payload_bytes, artifact.cache_key) != (sha256, size, spec.cache_key):
            return None
        # `bench doctor cache --keep` removes what was not used for longest; a cache that is shared may be read-only
        with contextlib.suppress(OSError):
            os.utime(entry)
        return artifact

    def put(self, spec: ExportSpec, write: Callable[[Path], Report]) -> Artifact:
        """Store the file that `write` creates at the path it is given.

        An intact entry that another process stored meanwhile is kept.

        Raises:
            StorageError: Disk full, or no permission; nothing is left behind.
        """
        pending = self.pending / f"{spec.cache_key[:16]}-{uuid.uuid4().hex}"
        try:
            self._drop_stale()
            pending.mkdir(parents=True)
            model = pending / _SUFFIX[spec.runtime]
            report = write(model)
            sha256, size = digest(model)
            record = {
                "sha256": sha256,
                "payload_bytes": size,
                "cache_key": spec.cache_key,
                "report": report.model_dump(),
            }
            (pending / "record.json").write_text(json.dumps(record), encoding="utf-8")
            _sync(pending)
            return self._publish(spec, pending)
        except OSError as error:
            what = f"cannot write to the model cache {self.root} (BLOCKTIME_CACHE names another folder)"
            raise storage_error(what, error, "name one that you may write to") from error
        finally:
            shutil.rmtree(pending, ignore_errors=True)

    def _publish(self, spec: ExportSpec, pending: Path) -> Artifact:
        entry = self.models / spec.cache_key
        self.models.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            try:
                pending.rename(entry)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                artifact = self.get(spec)
                if artifact is None:
                    self._discard(entry)
                    continue
                return artifact
            artifact = self.get(spec)
            if artifact is not None:
                return artifact
            raise BlocktimeError(
                f"{entry}: unreadable right after it was written; check the disk", code="unreadable_file"
            )
        raise BlocktimeError(f"{entry}: cannot be replaced; delete it and try again", code="not_writable")

    def _discard(self, entry: Path) -> None:
        """Move a damaged entry out of the way at once, then delete it."""
        aside = self.pending / f"damaged-{uuid.uuid4().hex}"
        try:
            entry.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _drop_stale(self) -> None:
        self.pending.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - STALE_S
        for path in self.pending.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)


def digest(path: Path) -> tuple[str, int]:
    """Return sha256 and size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _sync(folder: Path) -> None:
    """Write the files' data to the disk: a full disk shows now, and a crash leaves no renamed empty file."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
