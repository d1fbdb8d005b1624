"""Which output of a classifier is which class of the images: by name, as somebody says it, never by a guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from search.supernet.data.source import MAX_CLASSES

IMAGENET = "imagenet"
MAX_BYTES = 16 << 20
"""Room for a name of 256 bytes for each of the most classes."""


@dataclass(frozen=True)
class ClassNames:
    """Names of a classifier's outputs, in their order; `given` is the text of `--classes`."""

    given: str
    names: tuple[str, ...]


def class_names(given: str) -> ClassNames:
    """ImageNet's 1000 synsets (`n01440764`, ...) of `imagenet`, or the lines of a file.

    Raises:
        UsageError: a name comes twice, or there are none.
        InvalidArtifactError: the file can't be read.
    """
    if given == IMAGENET:
        from timm.data import ImageNetInfo  # brings torch

        return ClassNames(given, tuple(ImageNetInfo("imagenet-1k").label_names()))
    path = Path(given)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidArtifactError(f"--classes {given}: over {MAX_BYTES >> 20} MiB; give a name a line")
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidArtifactError(
            f"--classes {given}: cannot be read ({why}); give {IMAGENET}, or a file with a name a line"
        ) from error
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"--classes {given}: {len(names)} names; give a name a line, in the outputs' order")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UsageError(f"--classes {given}: {name!r} stands there {count} times; give each output its name")
    return ClassNames(given, names)


def output_of_class(
    what: str, outputs: int, source: str, classes: Sequence[str], named: ClassNames | None
) -> np.ndarray:
    """The output of each class of the images, (classes,) int64.

    A classifier with as many outputs as `named` has names is of these; else one with an output for each class of
    the images was trained on them, in their order.

    Args:
        what: The classifier, in messages.
        outputs: How many it has.
        source: Text of the images' source.
        classes: Their names.
        named: What the outputs are called, if somebody says so.

    Raises:
        UsageError: a class is none of the outputs, or nothing says which is which.
    """
    if named is not None and outputs == len(named.names):
        place = {name: number for number, name in enumerate(named.names)}
        if absent := [name for name in classes if name not in place]:
            raise UsageError(
                f"{what}: class {absent[0]!r} of {source} is not one of the {outputs} of --classes "
                f"{named.given} ({len(absent)} such in all); name the classes of the images as there"
            )
        return np.array([place[name] for name in classes])
    if outputs == len(classes):
        return np.arange(outputs)
    beyond = f", labels go beyond them up to {len(classes) - 1}" if outputs < len(classes) else ""
    said = f", --classes {named.given} has {len(named.names)} names" if named else ""
    raise UsageError(
        f"{what} has {outputs} outputs and {source} {len(classes)} classes{beyond}{said}; say which output is "
        f"which with --classes {IMAGENET} (folders named n01440764 and so on), or a file with a name a line"
    )
