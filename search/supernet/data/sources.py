"""Image sources: `imagefolder:DIR`, `cifar10:DIR`, `cifar10:FILE.npz`, `npz:FILE`, `digits`."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import open_zip

MAX_CLASSES = 65_536
"""As many as an architecture may have."""


@dataclass(frozen=True)
class ImageSource:
    """Labelled images.

    Attributes:
        name: As given on the command line.
        classes: Class names; a label is an index into them.
        labels: (N,) int64.
        image: Index -> RGB image, uint8 (H, W, 3); raises InvalidArtifactError naming a damaged one.
        digest: sha256 that changes with the images (imagefolder: with paths and sizes).
        side: Side in pixels where all images are squares of one size, else None.
        flips: Whether a mirrored image keeps its label.
        validation_from: Index of the first image of the source's own validation set, which ends it; or None.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    image: Callable[[int], np.ndarray] = field(repr=False)
    digest: str
    side: int | None = None
    flips: bool = True
    validation_from: int | None = None


def arrays_digest(*arrays: np.ndarray) -> str:
    """sha256 of arrays with their types and shapes."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


MAX_ENCODED_BYTES = 64 * 1024 * 1024
"""Largest encoded image that is decoded."""

MAX_PIXELS = 50_000_000
"""Largest decoded image, so that a small file can't fill the memory."""

NEXT_STEP = "restore it and repeat, or remove it and start over in another folder"
"""What to do about a bad image: a run goes on with the very images that it began with."""


def decode(data: bytes, what: str) -> np.ndarray:
    """Decode an image as uint8 (H, W, 3); raises InvalidArtifactError, which calls it `what`."""
    if len(data) > MAX_ENCODED_BYTES:
        raise InvalidArtifactError(
            f"{what} has over {MAX_ENCODED_BYTES} bytes; shrink or remove it", code="file_too_large"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidArtifactError(
                        f"{what} is {image.width}x{image.height}, over {MAX_PIXELS} pixels; shrink it",
                        code="file_too_large",
                    )
                return np.asarray(image.convert("RGB"))
    except InvalidArtifactError:
        raise
    except Exception as error:  # decoders raise many classes: SyntaxError, struct.error, OSError, ...
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else first_line(error)
        raise InvalidArtifactError(
            f"{what} is not an intact image ({reason}); {NEXT_STEP}", code="damaged_image"
        ) from error


def read_image(path: Path, name: str = "") -> np.ndarray:
    """Read an image file as uint8 (H, W, 3); raises InvalidArtifactError, which calls it `name`, or by its path."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_ENCODED_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode(data, name or str(path))


def file_size(path: Path) -> int:
    """Return the bytes of an image file; raises InvalidArtifactError if it can't be read."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InvalidArtifactError:
    return InvalidArtifactError(
        f"{path}: cannot be read ({error.strerror}); {NEXT_STEP}", code="damaged_image"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""The functions that CIFAR-10's files, pickled by Python 2, call."""


class _Unpickler(pickle.Unpickler):
    """Unpickles nested lists, dictionaries and arrays; calls nothing but what `_PICKLED` names.

    It reads only bytes whose digest is that of an original file; no other part of the package unpickles.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise ValueError(f"it names {module}.{name}, which these files do not have")
        return _PICKLED[module, name]


MAX_IMAGES = 20_000_000
"""More than ImageNet-21k; a larger count in a file is a damaged one."""

MAX_UNPACKED = 20
"""Bytes of an unpacked npz for each of the file: JPEGs hardly shrink, offsets and labels do."""


def open_npz(text: str, path: Path) -> ImageSource:
    """Open the images of a file; raises InvalidArtifactError if it is damaged."""
    try:
        blob, offsets, labels = _read_npz(path)
    except Exception as error:  # zipfile and zlib raise classes of their own for damaged archives
        pickled = "allow_pickle" in str(error)
        reason = "it holds pickled objects, which are not read" if pickled else first_line(error)
        raise InvalidArtifactError(
            f"{text}: cannot read blob, off and y ({reason}); give a complete npz of JPEGs",
            code="damaged_images_file",
        ) from error

    def image(index: int) -> np.ndarray:
        return decode(blob[offsets[index] : offsets[index + 1]].tobytes(), f"{text}: image {index}")

    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    height, width, _ = image(0).shape
    side = height if height == width else None
    return ImageSource(text, names, labels, image, arrays_digest(blob, offsets, labels), side)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the encoded images, and offsets and labels as int64; raises ValueError if they do not fit together."""
    with open_zip(path) as archive:
        unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
    if unpacked_bytes > MAX_UNPACKED * path.stat().st_size:
        raise ValueError(f"{unpacked_bytes} bytes unpacked, too many for its size")
    with np.load(path, allow_pickle=False) as file:
        blob, offsets, labels = (np.asarray(file[key]) for key in ("blob", "off", "y"))
    integers = all(np.issubdtype(array.dtype, np.integer) for array in (offsets, labels))
    if blob.dtype != np.uint8 or not integers or {blob.ndim, offsets.ndim, labels.ndim} != {1}:
        raise ValueError("blob must be uint8, off and y integers, all one-dimensional")
    offsets, labels = offsets.astype(np.int64), labels.astype(np.int64)
    if not 1 <= len(labels) <= MAX_IMAGES or len(offsets) != len(labels) + 1:
        raise ValueError(
            f"{len(offsets)} offsets and {len(labels)} labels; every label needs one, and the end another"
        )
    sizes = np.diff(offsets)
    if offsets[0] < 0 or offsets[-1] > len(blob) or sizes.min() < 0 or sizes.max() > MAX_ENCODED_BYTES:
        raise ValueError("offsets leave the blob or do not grow")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise ValueError(f"labels leave 0..{MAX_CLASSES - 1}; number the classes from 0")
    return blob, offsets, labels


TRAINING_IMAGES = 50_000
"""In one file with the others they come first."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FOLDER = "cifar-10-batches-py"

MAX_BATCH_BYTES = 64 << 20
"""Twice those of a batch."""

BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Files and their MD5, as the data set's page gives it: another file is not unpickled."""


def open_cifar10(text: str, path: Path) -> ImageSource:
    """Open all of CIFAR-10, its test set as the validation set; raises InvalidArtifactError if it is damaged."""
    if path.is_file():
        source = open_npz(text, path)
        if len(source.labels) <= TRAINING_IMAGES or len(source.classes) != len(CLASSES):
            raise InvalidArtifactError(
                f"{text}: {len(source.labels)} images of {len(source.classes)} classes, not all of CIFAR-10; "
                "use npz:FILE for other images",
                code="damaged_images_file",
            )
        return replace(source, classes=CLASSES, validation_from=TRAINING_IMAGES)
    batches = [_read_batch(text, path / FOLDER / name, md5) for name, md5 in BATCHES.items()]
    images = np.concatenate([pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return ImageSource(
        text,
        CLASSES,
        labels,
        images.__getitem__,
        arrays_digest(images, labels),
        side=32,
        validation_from=len(labels) - len(batches[-1][1]),
    )


def _read_batch(text: str, path: Path, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 3072) and labels (N,) of one file, which is unpickled only if its MD5 is the original's."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BATCH_BYTES)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise ValueError("its MD5 is not that of the original")
        values = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        pixels, labels = np.asarray(values["data"]), np.asarray(values["labels"], np.int64)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise InvalidArtifactError(
            f"{text}: no intact CIFAR-10 ({path.name}: {reason}); expected DIR/{FOLDER} as "
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz unpacks it",
            code="damaged_images_file",
        ) from error
    return pixels, labels


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


def open_imagefolder(text: str, path: Path) -> ImageSource:
    """Open the images below a directory; raises UsageError for another layout or an empty class."""
    parts = [path / "train", path / "val"] if (path / "train").is_dir() else [path]
    names = _class_names(text, parts)
    files: list[Path] = []
    labels: list[int] = []
    ends: list[int] = []
    for part in parts:
        for label, name in enumerate(names):
            images = sorted(p for p in (part / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not images:
                raise UsageError(
                    f"{text}: class {name!r} has no images in {part}; add some or remove it",
                    code="empty_class",
                )
            files += images
            labels += [label] * len(images)
        ends.append(len(files))
    hashed = hashlib.sha256()
    for file, label in zip(files, labels, strict=True):
        hashed.update(f"{file.relative_to(path)}\0{file_size(file)}\0{label}\n".encode())
    return ImageSource(
        text,
        names,
        np.asarray(labels, np.int64),
        lambda index: read_image(files[index]),
        hashed.hexdigest(),
        validation_from=ends[0] if len(ends) > 1 else None,
    )


def _class_names(text: str, parts: Sequence[Path]) -> tuple[str, ...]:
    """Return the directories of the first part, which the others may not exceed."""
    if not all(part.is_dir() for part in parts):
        raise UsageError(
            f"{text}: {parts[-1]} is not a directory; expected DIR/CLASS or DIR/train and DIR/val",
            code="wrong_layout",
        )
    names = tuple(sorted(entry.name for entry in parts[0].iterdir() if entry.is_dir()))
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(
            f"{text}: {parts[0]} has no directory per class; expected DIR/CLASS/IMAGE", code="wrong_layout"
        )
    for part in parts[1:]:
        foreign = sorted({entry.name for entry in part.iterdir() if entry.is_dir()} - set(names))
        if foreign:
            raise UsageError(
                f"{text}: {part} has a class {foreign[0]!r} that train does not have; move or remove it",
                code="class_mismatch",
            )
    return names


_OPENERS = {"imagefolder": open_imagefolder, "cifar10": open_cifar10, "npz": open_npz}


def open_source(text: str) -> ImageSource:
    """Open the source of a command-line text.

    Raises:
        UsageError: unknown kind, missing path, a class without images.
        InvalidArtifactError: a damaged file.
    """
    kind, _, where = text.partition(":")
    if text == "digits":
        return _open_digits()
    if kind not in _OPENERS or not where:
        raise UsageError(
            f"{text!r} is not an image source; use imagefolder:DIR, cifar10:DIR, npz:FILE or digits",
            code="unknown_source",
        )
    path = Path(where)
    if not path.exists():
        raise UsageError(f"{text}: {path} does not exist; give the path of your images", code="no_such_path")
    source = _OPENERS[kind](text, path)
    present = np.bincount(source.labels, minlength=len(source.classes))
    if not present.all():
        empty = source.classes[int(np.argmin(present))]
        raise UsageError(
            f"{text}: class {empty!r} has no images; add some or remove the class", code="empty_class"
        )
    return source


def _open_digits() -> ImageSource:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.repeat((bunch.images * 255 / 16).round().astype(np.uint8)[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(name) for name in bunch.target_names)
    return ImageSource(
        "digits", names, labels, images.__getitem__, arrays_digest(images, labels), 8, flips=False
    )
