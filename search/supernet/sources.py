"""Where labelled images come from: `imagefolder:DIR`, `cifar10:DIR`, `cifar10:FILE.npz`, `npz:FILE`, `digits`.

A source knows its labels at once and decodes one image at a time. Files are untrusted: numbers of images and
pixels are bounded, and nothing is unpickled but CIFAR-10's own batches, whose MD5 torchvision checks first.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from luts.errors import InvalidArtifactError, UsageError

MAX_IMAGES = 20_000_000
"""More than ImageNet-21k; a larger count in a file is a damaged one."""

MAX_CLASSES = 65_536
"""As many as an architecture may have."""

MAX_ENCODED_BYTES = 64 * 1024 * 1024
"""Largest encoded image that is decoded."""

MAX_PIXELS = 50_000_000
"""Largest decoded image, so that a small file can't fill the memory."""

MAX_UNPACKED = 20
"""Bytes of an unpacked npz for each of the file: JPEGs hardly shrink, offsets and labels do."""

CIFAR10_TRAINING = 50_000
"""Images of CIFAR-10's training set; in one file with the others they come first."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_NEXT = "restore it and repeat, or remove it and begin anew in another folder"
"""What to do about a bad image: a run goes on with the very images that it began with."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


@dataclass(frozen=True)
class Source:
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


def open_source(text: str) -> Source:
    """The source of a command-line text.

    Raises:
        UsageError: unknown kind, missing path, a class without images.
        InvalidArtifactError: a damaged file.
    """
    kind, _, where = text.partition(":")
    openers = {"imagefolder": _open_imagefolder, "cifar10": _open_cifar10, "npz": _open_npz}
    if text == "digits":
        return _open_digits()
    if kind not in openers or not where:
        raise UsageError(f"{text!r} is no image source; use imagefolder:DIR, cifar10:DIR, npz:FILE or digits")
    path = Path(where)
    if not path.exists():
        raise UsageError(f"{text}: {path} does not exist; give the path of your images")
    source = openers[kind](text, path)
    present = np.bincount(source.labels, minlength=len(source.classes))
    if not present.all():
        empty = source.classes[int(np.argmin(present))]
        raise UsageError(f"{text}: class {empty!r} has no images; add some or remove the class")
    return source


def _open_digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.repeat((bunch.images * 255 / 16).round().astype(np.uint8)[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(name) for name in bunch.target_names)
    return Source("digits", names, labels, images.__getitem__, _digest(images, labels), 8, flips=False)


def _open_cifar10(text: str, path: Path) -> Source:
    """torchvision's folder; or a file as of `npz:` of all images, the training set first."""
    if path.is_file():
        return _open_cifar10_npz(text, path)
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(path), train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise InvalidArtifactError(
            f"{text}: no intact CIFAR-10 in torchvision's layout ({_line(error)}); "
            "expected DIR/cifar-10-batches-py"
        ) from error
    images = np.concatenate([part.data for part in parts])
    labels = np.concatenate([np.asarray(part.targets, np.int64) for part in parts])
    names = tuple(parts[0].classes)
    digest = _digest(images, labels)
    return Source(text, names, labels, images.__getitem__, digest, 32, validation_from=len(parts[0].targets))


def _open_cifar10_npz(text: str, path: Path) -> Source:
    source = _open_npz(text, path)
    if len(source.labels) <= CIFAR10_TRAINING or len(source.classes) != len(CIFAR10_CLASSES):
        raise InvalidArtifactError(
            f"{text}: {len(source.labels)} images of {len(source.classes)} classes, not all of CIFAR-10; "
            "use npz:FILE for other images"
        )
    return replace(source, classes=CIFAR10_CLASSES, validation_from=CIFAR10_TRAINING)


def _open_npz(text: str, path: Path) -> Source:
    """JPEGs end to end: image i is `blob[off[i]:off[i + 1]]`, its label `y[i]`."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > MAX_UNPACKED * path.stat().st_size:
            raise ValueError(f"{unpacked_bytes} bytes unpacked, too many for its size")
        with np.load(path, allow_pickle=False) as file:
            blob, offsets, labels = (np.asarray(file[key]) for key in ("blob", "off", "y"))
    except Exception as error:  # zipfile and zlib raise classes of their own for damaged archives
        pickled = "allow_pickle" in str(error)
        reason = "it holds pickled objects, which are not read" if pickled else _line(error)
        raise InvalidArtifactError(
            f"{text}: cannot read blob, off and y ({reason}); give a complete npz of JPEGs"
        ) from error
    integers = all(np.issubdtype(a.dtype, np.integer) for a in (offsets, labels))
    if blob.dtype != np.uint8 or not integers or {blob.ndim, offsets.ndim, labels.ndim} != {1}:
        raise InvalidArtifactError(
            f"{text}: not as expected; blob must be uint8, off and y integers, all one-dimensional"
        )
    offsets, labels = offsets.astype(np.int64), labels.astype(np.int64)
    if not 1 <= len(labels) <= MAX_IMAGES or len(offsets) != len(labels) + 1:
        raise InvalidArtifactError(
            f"{text}: {len(offsets)} offsets and {len(labels)} labels; "
            "every label needs an offset, and the end another"
        )
    sizes = np.diff(offsets)
    if offsets[0] < 0 or offsets[-1] > len(blob) or sizes.min() < 0 or sizes.max() > MAX_ENCODED_BYTES:
        raise InvalidArtifactError(f"{text}: offsets leave the blob or do not grow; the file is damaged")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise InvalidArtifactError(f"{text}: labels leave 0..{MAX_CLASSES - 1}; number the classes from 0")

    def image(index: int) -> np.ndarray:
        return _decode(blob[offsets[index] : offsets[index + 1]].tobytes(), f"{text}: image {index}")

    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    first = image(0).shape
    side = first[0] if first[0] == first[1] else None
    return Source(text, names, labels, image, _digest(blob, offsets, labels), side)


def _open_imagefolder(text: str, path: Path) -> Source:
    """One directory a class; or `train` and `val` with one directory a class each."""
    parts = [path / "train", path / "val"] if (path / "train").is_dir() else [path]
    if not all(part.is_dir() for part in parts):
        raise UsageError(f"{text}: {parts[-1]} is no directory; expected DIR/CLASS or DIR/train and DIR/val")
    names = tuple(sorted(entry.name for entry in parts[0].iterdir() if entry.is_dir()))
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"{text}: {parts[0]} holds no directory a class; expected DIR/CLASS/IMAGE")
    for part in parts[1:]:
        foreign = sorted({entry.name for entry in part.iterdir() if entry.is_dir()} - set(names))
        if foreign:
            raise UsageError(
                f"{text}: {part} has a class {foreign[0]!r} that train has not; move or remove it"
            )
    files: list[Path] = []
    labels: list[int] = []
    validation_from = None
    for part in parts:
        if part is not parts[0]:
            validation_from = len(files)
        for label, name in enumerate(names):
            found = sorted(p for p in (part / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UsageError(f"{text}: class {name!r} has no images in {part}; add some or remove it")
            files += found
            labels += [label] * len(found)
    hashed = hashlib.sha256()
    for file, label in zip(files, labels, strict=True):
        hashed.update(f"{file.relative_to(path)}\0{_size(file)}\0{label}\n".encode())

    def image(index: int) -> np.ndarray:
        file = files[index]
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_ENCODED_BYTES + 1)
        except OSError as error:
            raise InvalidArtifactError(f"{file}: cannot be read ({error.strerror}); {_NEXT}") from error
        return _decode(data, str(file))

    return Source(
        text, names, np.asarray(labels, np.int64), image, hashed.hexdigest(), validation_from=validation_from
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise InvalidArtifactError(f"{file}: cannot be read ({error.strerror}); {_NEXT}") from error


def _decode(data: bytes, what: str) -> np.ndarray:
    """An encoded image as uint8 (H, W, 3)."""
    if len(data) > MAX_ENCODED_BYTES:
        raise InvalidArtifactError(f"{what} has over {MAX_ENCODED_BYTES} bytes; shrink or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidArtifactError(
                        f"{what} is {image.width}x{image.height}, over {MAX_PIXELS} pixels; shrink it"
                    )
                return np.asarray(image.convert("RGB"))
    except InvalidArtifactError:
        raise
    except Exception as error:  # decoders raise many classes: SyntaxError, struct.error, OSError, ...
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else _line(error)
        raise InvalidArtifactError(f"{what} is no intact image ({reason}); {_NEXT}") from error


def _digest(*arrays: np.ndarray) -> str:
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
