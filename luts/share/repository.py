"""A place of shared LUTs: what is there, one more, the files of one.

Pushes at the same time lose nothing: each writes files of its own, the entry of a LUT last, and entries that are
listed are what counts. `index.json` repeats them for servers that can't list. Whoever writes it lists again
afterwards and writes again if it lacks one: the last to write it has listed after all others' entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from luts.format.codec import MAX_FILE_BYTES
from luts.format.errors import InvalidArtifactError, StorageError, UsageError
from luts.format.messages import few, first_problem
from luts.format.origin import SIGNATURE_FILE
from luts.share.index import (
    ENTRY_PATH,
    INDEX_FILE,
    INDEX_FOLDER,
    MAX_ENTRY_BYTES,
    MAX_INDEX_BYTES,
    MAX_LUTS,
    Index,
    SharedLut,
)
from luts.share.location import Location
from luts.share.signature import SIGNATURE_BYTES

WRITES = 20
"""Times that index.json is written again because others wrote theirs in between."""


@dataclass(frozen=True)
class Repository:
    """LUTs under a location; `tell` is told of entries that can't be read."""

    location: Location
    tell: Callable[[str], None]

    def luts(self) -> list[SharedLut]:
        """All, in order of name and date.

        Raises:
            UsageError: there is no such folder.
            InvalidArtifactError: a server that lists no names has no index.json, or it is damaged.
            StorageError: it can't be reached.
        """
        if not self.location.is_there():
            raise UsageError(
                f"{self.location.url}: no such folder; check its name, or bench lut push makes it"
            )
        return sorted(self._entries().values(), key=lambda lut: (lut.name, lut.created, lut.digest))

    def check_writable(self) -> None:
        """Raises UsageError where the place is only read."""
        if not self.location.writable:
            raise UsageError(f"{self.location.url} is only read; push to a folder, s3:// or hf://")

    def push(self, files: Mapping[str, bytes], signature: bytes | None) -> tuple[SharedLut, bool]:
        """Add a LUT of four files; what is there, and whether it was added now.

        Raises:
            UsageError: the place is only read.
            InvalidArtifactError: other files are there under its digest, or another signature; they stay.
            StorageError: the place refuses.
        """
        self.check_writable()
        lut = SharedLut.of_files(files)
        for name in MAX_FILE_BYTES:
            self.location.create(lut.file_path(name), files[name])
        if signature is not None:
            self.location.create(lut.file_path(SIGNATURE_FILE), signature)
        new = self.location.create(lut.path, (lut.model_dump_json(indent=1) + "\n").encode())
        self._write_index()
        return lut, new

    def files(self, lut: SharedLut) -> tuple[dict[str, bytes], bytes | None]:
        """A LUT's four files, which have the digests that its entry says, and its signature.

        Raises:
            InvalidArtifactError: one is missing, too large, or another.
            StorageError: the place can't be reached.
        """
        files = {}
        for name, limit in MAX_FILE_BYTES.items():
            told = next(fact for file, fact in lut.files.items() if file == name)
            content = self.location.read(lut.file_path(name), min(told.size, limit))
            if content is None or hashlib.sha256(content).hexdigest() != told.sha256:
                why = "is missing" if content is None else "differs from its digest"
                raise InvalidArtifactError(
                    f"{self.location.url}: {name} of {lut} {why}; tell who keeps the place"
                )
            files[name] = content
        return files, self.location.read(lut.file_path(SIGNATURE_FILE), SIGNATURE_BYTES)

    def find(self, wanted: str) -> SharedLut:
        """The LUT of a name: `device/space/variant`, parts of it in order, or the first digits of a digest.

        Of one name's LUTs the newest. Raises UsageError listing what there is.
        """
        luts = self.luts()
        words = [word for word in wanted.split("/") if word]
        fitting = [lut for lut in luts if _fits(lut, words)]
        names = sorted({lut.name for lut in fitting or luts})
        if fitting and len(names) == 1:
            return max(fitting, key=lambda lut: (lut.created, lut.digest))
        what = (
            f"fits several: {few(names, 8)}; name one"
            if fitting
            else f"is not there; there are {few(names, 8) or 'none'}"
        )
        raise UsageError(f"{self.location.url}: LUT {wanted[:120]} {what}")

    def _entries(self) -> dict[str, SharedLut]:
        indexed = {lut.path: lut for lut in self._index().luts}
        if not self.location.listed:
            return indexed
        listed = [path for path in self.location.names(INDEX_FOLDER) if ENTRY_PATH.fullmatch(path)][:MAX_LUTS]
        entries = {path: indexed.get(path) or self._entry(path) for path in listed}
        return {path: lut for path, lut in entries.items() if lut is not None}

    def _index(self) -> Index:
        content = self.location.read(INDEX_FILE, MAX_INDEX_BYTES)
        if content is None:
            if self.location.listed:
                return Index(luts=())
            raise InvalidArtifactError(
                f"{self.location.url} has no {INDEX_FILE}; give the place that LUTs were pushed to"
            )
        try:
            return Index.model_validate_json(content)
        except ValidationError as error:
            problem = f"{self.location.url}: {INDEX_FILE} is damaged ({first_problem(error, 'JSON')})"
            if not self.location.listed:
                raise InvalidArtifactError(f"{problem}; push a LUT to write it again") from error
            self.tell(f"{problem}; the entries are read instead")
            return Index(luts=())

    def _entry(self, path: str) -> SharedLut | None:
        try:
            content = self.location.read(path, MAX_ENTRY_BYTES)
            if content is None:
                return None
            lut = SharedLut.model_validate_json(content)
            if lut.path != path:
                raise InvalidArtifactError(f"{self.location.url}: it is the entry of {lut}")
            return lut
        except ValidationError as error:
            self.tell(f"{path} is left out: {first_problem(error, 'JSON')}")
        except InvalidArtifactError as error:
            self.tell(f"{path} is left out: {error}")
        return None

    def _write_index(self) -> None:
        for _ in range(WRITES):
            entries = self._entries()
            if self._index().luts == (told := tuple(entries[path] for path in sorted(entries))):
                return
            self.location.replace(INDEX_FILE, (Index(luts=told).model_dump_json() + "\n").encode())
        raise StorageError(
            f"{self.location.url}: others write {INDEX_FILE} all the time; the LUT is there, push again to index it"
        )


def _fits(lut: SharedLut, words: list[str]) -> bool:
    remaining = iter(lut.parts)
    return bool(words) and all(
        any(
            word == part or (part == lut.digest and len(word) >= 6 and part.startswith(word))
            for part in remaining
        )
        for word in words
    )
