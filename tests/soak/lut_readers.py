"""Readers of LUTs: files in a store, and those that others share."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.schema import LutMeta
from luts.format.store import LutRef, LutStore
from luts.share.location import Folder, Location
from luts.share.repository import Repository, pull
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_text
from tests.soak.reader import FILE, SEALED, Reader


class LutReader(Reader):
    """The four files of a LUT, one of them damaged."""

    def make(self) -> None:
        """Make a small LUT."""
        from luts.format.lut import MAX_FILE_BYTES, decode, encode

        self.files = encode(_small_lut())
        self.lut, self.names = decode(self.files), list(MAX_FILE_BYTES)
        self.corpus = [
            bytes([at | seal]) + self.files[name]
            for at, name in enumerate(self.names)
            for seal in (0, SEALED)
        ]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return other values of lut.json, other cells of a table, or other samples."""
        name = self.names[file % len(self.names)]
        if name.endswith(".json"):
            return mutate_json(content, rng, (",", ": "), indent=2) + b"\n"
        return mutate_text(content, rng) if name.endswith(".csv") else mutate_bytes(content, rng)

    def read(self, data: bytes) -> str:
        """Read a LUT and predict its reference; without a seal it must be the undamaged one."""
        from luts.format.lut import decode, encode

        flags = data[0] if data else 0
        files = {**self.files, self.names[(flags & FILE) % len(self.names)]: data[1:]}
        if flags & SEALED:
            files["lut.json"] = _sealed_meta(files)
        lut = decode(files)
        if not flags & SEALED:
            return "" if lut == self.lut else "a changed LUT is accepted"
        encode(lut)
        predicted = lut.predict(self.lut.models[0].blocks, 0)
        return "" if math.isfinite(predicted.ms) else f"a prediction of {predicted.ms} ms"


@functools.cache
def _small_lut() -> Any:
    from tests.support.lut_world import small_study

    return small_study(designs=3, segments=2, rounds=4).lut()


def _sealed_meta(files: dict[str, bytes]) -> bytes:
    """Return lut.json with the right digests, where it is an object at all."""
    from luts.format.lut import _DIGESTED, _canonical

    try:
        document = json.loads(files["lut.json"])
        document["sha256"] = {
            field: hashlib.sha256(files[name]).hexdigest() for field, name in _DIGESTED.items()
        }
        document.pop("digest", None)
        document["digest"] = hashlib.sha256(_canonical(document)).hexdigest()
        return _canonical(document)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return files["lut.json"]


class MemoryLocation(Location):
    """A repository in memory, which is only read."""

    def __init__(self, files: dict[str, bytes], listed: bool) -> None:
        """Hold files by path."""
        super().__init__("memory", writable=False, listed=listed)
        self._files = files

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file, as any location does."""
        content = self._files.get(path)
        if content is not None and len(content) > limit:
            raise InvalidArtifactError("too large", code="too_large")
        return content

    def names(self, folder: str) -> list[str]:
        """Return the paths in a folder."""
        return [name for name in self._files if name.startswith(folder)]

    def replace(self, path: str, content: bytes) -> None:
        """Fail: a reader does not write."""
        raise AssertionError(path)

    _create = replace


class UnwrittenStore(LutStore):
    """An empty store that keeps what would be written."""

    written: dict[str, bytes]

    def list(self) -> list[LutRef]:
        """Return nothing."""
        return []

    def write_files(self, meta: LutMeta, files: Mapping[str, bytes]) -> Path:
        """Keep a LUT's files."""
        del meta
        self.written = dict(files)
        return Path()


class SharedReader(Reader):
    """A repository of shared LUTs, one of its files damaged; listed as a folder, or read from its index alone."""

    def make(self) -> None:
        """Push a LUT to a folder."""
        from luts.format.lut import encode

        Repository(Folder("made", self.folder), print).push(encode(_small_lut()), b"s" * 64)
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}
        self.names = list(self.files)
        self.corpus = [bytes([at]) + content for at, content in enumerate(self.files.values())]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Return another version of the same file, or of another one: there is nothing to seal."""
        flags = (data[0] if data else 0) & FILE
        if rng.random() < 0.3:
            return bytes([flags]) + mutate_bytes(data[1:], rng, [other[1:] for other in self.corpus])
        if self.names[flags % len(self.names)].endswith(".json"):
            return bytes([flags]) + mutate_json(data[1:], rng)
        return bytes([flags]) + mutate_text(data[1:], rng)

    def read(self, data: bytes) -> str:
        """List and pull; what is pulled must be what was pushed."""
        flags = (data[0] if data else 0) & FILE
        files = {**self.files, self.names[flags % len(self.names)]: data[1:]}

        problems, refused = [], None
        for listed in (True, False):
            store = UnwrittenStore([self.folder])
            place = Repository(MemoryLocation(files, listed), lambda _: None)
            try:
                pull(place, "host", store, verify=False)
            except BlocktimeError as error:
                refused = error
                continue
            pushed = {name.rpartition("/")[2]: content for name, content in self.files.items()}
            if any(store.written[name] != pushed[name] for name in ("lut.json", "entries.csv", "models.csv")):
                problems.append("another LUT than the one that was pushed is pulled")
        if refused is not None and not problems:
            raise refused
        return "; ".join(problems)
