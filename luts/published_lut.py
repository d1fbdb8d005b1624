"""Block latencies that others published: sources for a fit, never a LUT.

They have no samples, no intervals and no reference, so nothing here can be loaded, verified or shared as a LUT, and
no field says `measured`. `<root>/published/<device>/<space>/<variant>.json` holds one; the published file itself
stays where it is, its digest is recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from luts.format.atomic_file import storage_error, write_read_only
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_bytes, read_json
from luts.format.messages import few, first_problem
from luts.format.schema import KeyFeatures
from luts.format.values import MAX_ENTRIES, IsoDate, Key, Name, PositiveMs, Sha256, Text, Value
from luts.hybrid_keys import features_of_key

FOLDER = "published"
MAX_TABLE_BYTES = 16 << 20
SPACES = {"nn-meter-hybrid": features_of_key}
"""Spaces whose keys can be read: what each block costs on paper."""

_TABLE = TypeAdapter(dict[Key, PositiveMs])


class PublishedBlock(KeyFeatures):
    """One block: its key in the published space, milliseconds as published, and what it costs on paper."""

    key: Key
    ms: PositiveMs


class PublishedLut(Value):
    """A published table of blocks.

    Attributes:
        device, title: Short name, and the device as its source calls it.
        space: One of `SPACES`.
        variant: How it ran, as the source says, such as `tflite-cpu`.
        source, licence: Where the numbers come from, and under which terms.
        file_sha256: Of the file that was published.
        digest: Of everything else here.
    """

    format: Literal["blocktime-published-lut/1"] = "blocktime-published-lut/1"
    label: Literal["published"] = "published"
    device: Name
    title: Text
    space: Name
    variant: Name
    source: Annotated[Text, Field(min_length=1)]
    licence: Annotated[Text, Field(min_length=1)]
    file_sha256: Sha256
    imported: IsoDate
    blocks: Annotated[tuple[PublishedBlock, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    digest: Sha256 | Literal[""] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keys = [block.key for block in self.blocks]
        if keys != sorted(set(keys)):
            raise ValueError("blocks are not unique and in order of key")
        if self.digest not in ("", self._own_digest()):
            raise ValueError("differs from its own digest: it was edited")
        return self

    def _own_digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"digest"}).encode()).hexdigest()

    def signed(self) -> Self:
        """With its digest."""
        return self.model_copy(update={"digest": self._own_digest()})

    def __str__(self) -> str:
        return f"{FOLDER}/{self.device}/{self.space}/{self.variant}"

    @cached_property
    def entry_ms(self) -> Mapping[str, float]:
        """Milliseconds of every block."""
        return {block.key: block.ms for block in self.blocks}

    @cached_property
    def features(self) -> Mapping[str, KeyFeatures]:
        """What every block costs on paper."""
        return {block.key: KeyFeatures.of(block) for block in self.blocks}


def read_table(
    file: Path, device: str, source: str, licence: str, space: str, variant: str, title: str = ""
) -> PublishedLut:
    """A published table of one device: a JSON object of milliseconds by block key.

    Raises:
        UsageError: an unknown space.
        InvalidArtifactError: the file is missing, too large, no such object, or a key is not one of the space.
    """
    if space not in SPACES:
        raise UsageError(f"unknown space {space[:80]!r} of published tables; known: {', '.join(SPACES)}")
    content = read_bytes(file, MAX_TABLE_BYTES, "give the file as it was published")
    try:
        table = _TABLE.validate_python(json.loads(content, object_pairs_hook=_once))
        rows = sorted((key, ms, SPACES[space](key)) for key, ms in table.items())
        blocks = [PublishedBlock(key=key, ms=ms, **dict(features)) for key, ms, features in rows]
        return PublishedLut(
            device=device,
            title=title or device,
            space=space,
            variant=variant,
            source=source,
            licence=licence,
            file_sha256=hashlib.sha256(content).hexdigest(),
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
            blocks=tuple(blocks),
        ).signed()
    except (ValueError, RecursionError) as error:
        reason = first_problem(error, "table") if isinstance(error, ValidationError) else str(error)[:200]
        raise InvalidArtifactError(
            f"{file}: not a table of {space} ({reason}); give a JSON object of milliseconds by block key"
        ) from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is there twice")
    return table


def write_published(lut: PublishedLut, root: Path) -> Path:
    """Write it once; the same numbers again leave the file as it is.

    Raises:
        UsageError: others are there under this name.
        StorageError: the file system refuses.
    """
    path = root / f"{lut}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            write_read_only(temporary, (lut.model_dump_json(indent=1) + "\n").encode())
            os.link(temporary, path)
    except FileExistsError:
        there = read_published(path)
        if there.model_copy(update={"imported": lut.imported, "digest": lut.digest}) != lut:
            raise UsageError(f"{lut} is there already and differs; give another --name") from None
    except OSError as error:
        raise storage_error(f"{path} not written", error, "set BLOCKTIME_LUTS to another folder") from error
    return path


def read_published(path: Path) -> PublishedLut:
    """The published LUT in a file. Raises InvalidArtifactError."""
    return read_json(path, PublishedLut, 4 * MAX_TABLE_BYTES, "import it again")


def list_published(roots: Sequence[Path]) -> dict[str, Path]:
    """Name `published/device/space/variant` to file; of equal names the first root's."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in sorted(root.glob(f"{FOLDER}/*/*/*.json")):
            found.setdefault(path.relative_to(root).with_suffix("").as_posix(), path)
    return found


def load_published_lut(name: str, roots: Sequence[Path]) -> PublishedLut:
    """The one of a whole name or a file.

    Raises:
        UsageError: there is none; the known ones are named.
        InvalidArtifactError: it is damaged or was edited.
    """
    known = list_published(roots)
    if name in known:
        return read_published(known[name])
    if Path(name).is_file():
        return read_published(Path(name))
    there = few(sorted(known)) or "none; bench lut import-published brings one"
    raise UsageError(f"no published LUT {name[:120]!r}; there are {there}")
