"""`imagefolder:DIR`: one directory a class; or `train` and `val` with one directory a class each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from search.supernet.data.decode import MAX_ENCODED_BYTES, NEXT_STEP, decode
from search.supernet.data.source import MAX_CLASSES, Source

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


def open_imagefolder(text: str, path: Path) -> Source:
    """The images below a directory; `UsageError` where it is not laid out as expected or a class is empty."""
    parts = [path / "train", path / "val"] if (path / "train").is_dir() else [path]
    names = _class_names(text, parts)
    files: list[Path] = []
    labels: list[int] = []
    ends: list[int] = []
    for part in parts:
        for label, name in enumerate(names):
            images = sorted(p for p in (part / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not images:
                raise UsageError(f"{text}: class {name!r} has no images in {part}; add some or remove it")
            files += images
            labels += [label] * len(images)
        ends.append(len(files))
    hashed = hashlib.sha256()
    for file, label in zip(files, labels, strict=True):
        hashed.update(f"{file.relative_to(path)}\0{_size(file)}\0{label}\n".encode())
    return Source(
        text,
        names,
        np.asarray(labels, np.int64),
        lambda index: _read(files[index]),
        hashed.hexdigest(),
        validation_from=ends[0] if len(ends) > 1 else None,
    )


def _class_names(text: str, parts: Sequence[Path]) -> tuple[str, ...]:
    """The directories of the first part, which the others may not exceed."""
    if not all(part.is_dir() for part in parts):
        raise UsageError(
            f"{text}: {parts[-1]} is not a directory; expected DIR/CLASS or DIR/train and DIR/val"
        )
    names = tuple(sorted(entry.name for entry in parts[0].iterdir() if entry.is_dir()))
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"{text}: {parts[0]} holds no directory a class; expected DIR/CLASS/IMAGE")
    for part in parts[1:]:
        foreign = sorted({entry.name for entry in part.iterdir() if entry.is_dir()} - set(names))
        if foreign:
            raise UsageError(
                f"{text}: {part} has a class {foreign[0]!r} that train has not; move or remove it"
            )
    return names


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise _unreadable(file, error) from error


def _read(file: Path) -> np.ndarray:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_ENCODED_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    return decode(data, str(file))


def _unreadable(file: Path, error: OSError) -> InvalidArtifactError:
    return InvalidArtifactError(f"{file}: cannot be read ({error.strerror}); {NEXT_STEP}")
