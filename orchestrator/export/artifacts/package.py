"""A Core ML package as one file: a zip of the `.mlpackage` folder, stored without compression, equal bytes for
equal packages. This is what an agent takes (PROTOCOL.md, `load`)."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from luts.format.atomic_file import storage_error
from luts.format.errors import InvalidArtifactError

PACKED_SUFFIX = ".mlpackage.zip"
MAX_ENTRIES = 4096
MAX_UNPACKED_BYTES = 2 << 30
"""Bounds of PROTOCOL.md."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip can name."""
_PLAIN_FILE = 0o100644 << 16
_MADE_ON_UNIX = 3


def pack(package: Path, target: Path) -> None:
    """Write the folder `package` and all files below it, in order of name, to a zip at `target`.

    Raises:
        OSError: as writing does.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in package.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), _EPOCH)
            entry.external_attr, entry.create_system = _PLAIN_FILE, _MADE_ON_UNIX
            archive.writestr(entry, path.read_bytes())


def check_package(package: Path) -> None:
    """InvalidArtifactError where a folder is not a Core ML package, or has more files than an agent takes."""
    if package.suffix != ".mlpackage" or not (package / "Manifest.json").is_file():
        raise InvalidArtifactError(
            f"{package} is a folder but not an .mlpackage with its Manifest.json; give a .pte file or a package"
        )
    count = sum(path.is_file() for path in package.rglob("*"))
    if count > MAX_ENTRIES:
        raise InvalidArtifactError(f"{package} has {count} files, an agent takes {MAX_ENTRIES}")


def deliver(source: Path, target: Path) -> Path:
    """Copy a model over what is at `target`; a packed Core ML package becomes a folder unless `target` is a zip.

    Raises:
        InvalidArtifactError: `source` is not a zip of one package, or too large.
        StorageError: `target` cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.name.endswith(PACKED_SUFFIX) and target.suffix != ".zip":
            _unpack(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise storage_error(f"cannot write {target}", error, "choose another --output") from error
    return target


def _unpack(source: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            places = {entry.filename: Path(entry.filename).parts for entry in entries}
            if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
                raise InvalidArtifactError(
                    f"{source}: over {MAX_ENTRIES} files or 2 GiB; is this the right file?"
                )
            if any(len(parts) < 2 or ".." in parts or parts[0] == "/" for parts in places.values()):
                raise InvalidArtifactError(f"{source}: not a zip of one .mlpackage; export it again")
            shutil.rmtree(target, ignore_errors=True)
            for entry in entries:
                place = target.joinpath(*places[entry.filename][1:])
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(entry))
    except zipfile.BadZipFile as error:
        raise InvalidArtifactError(f"{source}: not a zip archive ({error}); export it again") from error
