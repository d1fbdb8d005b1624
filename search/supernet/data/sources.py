"""Where labelled images come from: `imagefolder:DIR`, `cifar10:DIR`, `cifar10:FILE.npz`, `npz:FILE`, `digits`.

A source knows its labels at once and decodes one image at a time. Files are untrusted: numbers of images and
pixels are bounded, and nothing is unpickled (`search.supernet.data.pickled` reads CIFAR-10's batches).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from luts.format.errors import UsageError
from search.supernet.data.cifar10 import open_cifar10
from search.supernet.data.imagefolder import open_imagefolder
from search.supernet.data.npz import open_npz
from search.supernet.data.source import Source, arrays_digest

_OPENERS = {"imagefolder": open_imagefolder, "cifar10": open_cifar10, "npz": open_npz}


def open_source(text: str) -> Source:
    """The source of a command-line text.

    Raises:
        UsageError: unknown kind, missing path, a class without images.
        InvalidArtifactError: a damaged file.
    """
    kind, _, where = text.partition(":")
    if text == "digits":
        return _open_digits()
    if kind not in _OPENERS or not where:
        raise UsageError(
            f"{text!r} is not an image source; use imagefolder:DIR, cifar10:DIR, npz:FILE or digits"
        )
    path = Path(where)
    if not path.exists():
        raise UsageError(f"{text}: {path} does not exist; give the path of your images")
    source = _OPENERS[kind](text, path)
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
    return Source("digits", names, labels, images.__getitem__, arrays_digest(images, labels), 8, flips=False)
