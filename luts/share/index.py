"""What a place of shared LUTs says of each, and where its files lie.

    index/<device>/<space>/<variant>/<digest>.json     one a LUT, written once, after its files
    index.json                                         all of them, for servers that can't list
    luts/<digest>/lut.json, entries.csv, …             its files, written once; lut.json.sig if signed

`digest` is the sha256 of lut.json, which has those of the other files. No path is read from a file: all follow
from names and digests that a schema has checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field

from luts.format.codec import MAX_FILE_BYTES, META_FILE, decode_meta
from luts.format.values import Count, IsoDate, ModelId, Name, PositiveMs, Sha256, Text, Value

INDEX_FILE = "index.json"
INDEX_FOLDER = "index"
MAX_LUTS = 20_000
MAX_ENTRY_BYTES = 16 << 10
MAX_INDEX_BYTES = 64 << 20

ENTRY_PATH = re.compile(r"index/([a-z0-9._-]+)/([a-z0-9._-]+)/([a-z0-9._-]+)/([0-9a-f]{64})\.json")


class SharedFile(Value):
    """Of a LUT: digest and size in bytes."""

    sha256: Sha256
    size: Count


class SharedLut(Value):
    """A LUT as the index has it: a claim until it is pulled and verified."""

    format: Literal["blocktime-shared-lut/1"] = "blocktime-shared-lut/1"
    digest: Sha256
    device: Name
    space: Name
    variant: Name
    model: Text
    soc: Text
    os: Text
    os_build: Text
    runtime: Text
    measured: Literal["measured", "simulated"]
    reference_id: ModelId
    reference_ms: PositiveMs
    noise_floor: Annotated[float, Field(ge=0)]
    mape: Annotated[float, Field(ge=0)] | None
    created: IsoDate
    files: Annotated[
        dict[Literal["lut.json", "entries.csv", "models.csv", "samples.parquet"], SharedFile],
        Field(min_length=4),
    ]

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> Self:
        """From a LUT's four files. Raises InvalidArtifactError."""
        meta = decode_meta(files[META_FILE])
        device = meta.device
        return cls(
            digest=hashlib.sha256(files[META_FILE]).hexdigest(),
            device=device.name,
            space=meta.space,
            variant=meta.variant,
            model=device.model,
            soc=device.soc,
            os=device.os,
            os_build=device.os_build,
            runtime=meta.versions.runtime,
            measured=meta.measured,
            reference_id=meta.reference_id,
            reference_ms=meta.reference_ms,
            noise_floor=meta.noise_floor,
            mape=meta.heldout_error.mape if meta.heldout_error else None,
            created=meta.created,
            files={name: _fact(files[name]) for name in MAX_FILE_BYTES},  # type: ignore[misc]
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Device, space, variant and digest."""
        return self.device, self.space, self.variant, self.digest

    @property
    def name(self) -> str:
        """Without the digest."""
        return "/".join(self.parts[:3])

    def __str__(self) -> str:
        return f"{self.name}/{self.digest[:12]}"

    @property
    def path(self) -> str:
        """Of its own file in the index."""
        return "/".join((INDEX_FOLDER, *self.parts)) + ".json"

    def file_path(self, name: str) -> str:
        """Of one of its files."""
        return f"luts/{self.digest}/{name}"


class Index(Value):
    """`index.json`."""

    format: Literal["blocktime-lut-index/1"] = "blocktime-lut-index/1"
    luts: Annotated[tuple[SharedLut, ...], Field(max_length=MAX_LUTS)]


def _fact(content: bytes) -> SharedFile:
    return SharedFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
