"""Published figures: tables of papers, and published tables of block latencies; never mixed with measurements.

A file under `luts/reference/` holds one table of a paper. It has no samples and no version, and its schema
shares no field with `lut.json`: no LUT can be made of it, and no LUT can be read as one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from luts.format.errors import InvalidArtifactError, UsageError, first_problem, shorten
from luts.format.files import read_bytes, read_json, storage_error, write_read_only
from luts.format.schema import MAX_ENTRIES, IsoDate, Key, KeyFeatures, Name, PositiveMs, Sha256, Text, Value

MAX_BYTES = 64 * 1024
"""Size limit of a file; a table of twenty rows has 3 KiB."""

RowText = Annotated[str, Field(min_length=1, max_length=500)]
Figure = Annotated[float, Field(gt=0, lt=1e6)]


class PublishedRow(Value):
    """One network of a paper's table; None where the table has a dash.

    `flops_g` are FLOPs as defined by the paper, in 10^9; most papers count a multiply-accumulate as one.
    `top1_percent` is accuracy on ImageNet.
    """

    row: RowText
    params_m: Figure | None
    flops_g: Figure | None
    top1_percent: Annotated[float, Field(gt=0, le=100)] | None
    latency_ms: Figure | None


class PublishedTable(Value):
    """A paper's table with its source. `latency_device` is None where it has no latency on a device."""

    format: Literal["blocktime-published-figures/1"]
    label: Literal["published"]
    title: RowText
    paper: RowText
    table: RowText
    latency_device: RowText | None
    note: RowText
    rows: Annotated[tuple[PublishedRow, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _consistent(self) -> PublishedTable:
        names = [row.row for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError("two rows have the same name")
        if self.latency_device is None and any(row.latency_ms is not None for row in self.rows):
            raise ValueError("a latency without the device that it was measured on")
        return self

    def find(self, row: str) -> PublishedRow:
        """Return the row with this name. Raises InvalidArtifactError: the table has none."""
        for one in self.rows:
            if one.row == row:
                return one
        raise InvalidArtifactError(
            f"{self.title} ({self.table}) has no row {row!r}; correct the suite's file", code="unknown_row"
        )


REFERENCE = Path(__file__).parent / "reference"
"""Folder of the package's tables."""


def load_published(name: str, folder: Path = REFERENCE) -> PublishedTable:
    """Return the table with this name, e.g. `autovit-table2`.

    Raises UsageError: an unknown name; it lists the known ones. Raises InvalidArtifactError: the file is
    damaged.
    """
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise UsageError(
            f"no published table {name[:80]!r}; there are {', '.join(known)}", code="unknown_published_table"
        )
    return read_json(folder / f"{name}.json", PublishedTable, MAX_BYTES, "restore it")


BYTES_PER_ELEMENT = 4
HEAD_DIM = 16
CLASSES = 1000

_PATTERNS = {
    "firstconv": r"(\d+)_(\d+)_(\d+)_([12])_(\d+)",
    "conv": r"(\d+)_(\d+)_(\d+)_(\d+)_([12])_hard_swish_(\d+)_(se|nose)",
    "transds": r"(\d+)_(\d+)_(\d+)_([12])_(\d+)",
    "transattn": r"(\d+)_(\d+)_hard_swish_(\d+)_ln",
    "transffn": r"(\d+)_(\d+)_(\d+)_hard_swish_ln",
    "mbpool": r"(\d+)_(\d+)_(\d+)_(\d+)_hard_swish",
}
_KEY = {kind: re.compile(f"{kind}_{rest}") for kind, rest in _PATTERNS.items()}


@dataclass
class _Costs:
    """Costs of a block; `elements` are activations, read and written."""

    macs: int = 0
    depthwise_macs: int = 0
    params: int = 0
    elements: int = 0

    def dense(self, inputs: int, outputs: int, places: int, window: int = 1, read: int | None = None) -> None:
        """Add a convolution over `places` outputs of `window` inputs each, with folded BN or bias."""
        self.macs += inputs * outputs * window * places
        self.params += inputs * outputs * window + outputs
        self.elements += inputs * (places if read is None else read) + outputs * places

    def depthwise(self, channels: int, window: int, read: int, places: int) -> None:
        """Add a depthwise convolution."""
        macs = channels * window * places
        self.macs += macs
        self.depthwise_macs += macs
        self.params += channels * window + channels
        self.elements += channels * (read + places)

    def gate(self, channels: int, squeezed: int, places: int) -> None:
        """Add squeeze-and-excitation: pooling, two linear layers, and the multiplication of the map."""
        self.elements += channels * places + channels
        self.dense(channels, squeezed, 1)
        self.dense(squeezed, channels, 1)
        self.elements += 2 * channels * places + channels

    def norm(self, dim: int, tokens: int) -> None:
        """Add a layer normalisation."""
        self.params += 2 * dim
        self.elements += 2 * dim * tokens

    def features(self, kind: str) -> KeyFeatures:
        """Return the sums as features of a block."""
        return KeyFeatures(
            kind=kind,
            macs=self.macs,
            traffic_bytes=BYTES_PER_ELEMENT * self.elements,
            params=self.params,
            depthwise_macs=self.depthwise_macs,
        )


def features_of_key(key: str) -> KeyFeatures:
    """Return the features of a block from its key. Raises ValueError: a key of another form."""
    kind = key.partition("_")[0]
    match = _KEY[kind].fullmatch(key) if kind in _KEY and len(key) <= 160 else None
    if match is None:
        raise ValueError(f"{key[:80]!r} is not a key of this space")
    gated = match[0].endswith("_se")
    numbers = [int(part) for part in match.groups() if part.isdecimal()]
    if not all(0 < number <= 1 << 14 for number in numbers):
        raise ValueError(f"{key[:80]!r} has a size out of bounds")
    costs = _Costs()
    if kind == "conv":
        side, inputs, outputs, expansion, stride, kernel = numbers
        _mbconv(costs, side, inputs, outputs, expansion, stride, kernel, gated)
    else:
        _OTHERS[kind](costs, *numbers)
    return costs.features(kind)


def _mbconv(
    costs: _Costs, side: int, inputs: int, outputs: int, expansion: int, stride: int, kernel: int, gated: bool
) -> None:
    """Add nn-Meter's `dsconv`: where widths differ, the shortcut is a (pooled) 1x1 convolution."""
    wide, read, places = inputs * expansion, side**2, _out(side, stride) ** 2
    if expansion > 1:
        costs.dense(inputs, wide, read)
    costs.depthwise(wide, kernel**2, read, places)
    if gated:
        costs.gate(wide, wide // 4, places)
    costs.dense(wide, outputs, places)
    if inputs != outputs:
        if stride == 2:
            costs.elements += inputs * (read + places)
        costs.dense(inputs, outputs, places)
    if inputs != outputs or stride == 1:
        costs.elements += 3 * outputs * places


def _firstconv(costs: _Costs, side: int, inputs: int, outputs: int, stride: int, kernel: int) -> None:
    costs.dense(inputs, outputs, _out(side, stride) ** 2, kernel**2, side**2)


def _transds(costs: _Costs, side: int, inputs: int, outputs: int, stride: int, expansion: int) -> None:
    _mbconv(costs, side, inputs, outputs, expansion, stride, 3, True)


def _transattn(costs: _Costs, side: int, dim: int, v_scale: int) -> None:
    tokens, heads = side**2, dim // HEAD_DIM
    keys, values = HEAD_DIM * heads, HEAD_DIM * heads * v_scale
    costs.norm(dim, tokens)
    costs.dense(dim, 2 * keys + values, tokens)
    costs.macs += tokens**2 * (keys + values)
    costs.params += tokens * heads
    costs.elements += 6 * heads * tokens**2 + tokens * (2 * keys + 2 * values)
    costs.dense(values, dim, tokens)


def _transffn(costs: _Costs, side: int, dim: int, ratio: int) -> None:
    tokens = side**2
    costs.norm(dim, tokens)
    costs.dense(dim, ratio * dim, tokens)
    costs.dense(ratio * dim, dim, tokens)
    costs.elements += 3 * dim * tokens


def _mbpool(costs: _Costs, side: int, inputs: int, outputs: int, expansion: int) -> None:
    wide = inputs * expansion
    costs.dense(inputs, wide, side**2)
    costs.elements += wide * (side**2 + 1)
    costs.dense(wide, outputs, 1)
    costs.dense(outputs, CLASSES, 1)


_OTHERS: dict[str, Callable[..., None]] = {
    "firstconv": _firstconv,
    "transds": _transds,
    "transattn": _transattn,
    "transffn": _transffn,
    "mbpool": _mbpool,
}


def _out(side: int, stride: int) -> int:
    """Return the side of a `SAME` convolution's output."""
    return -(-side // stride)


FOLDER = "published"
MAX_TABLE_BYTES = 16 << 20
SPACES = {"nn-meter-hybrid": features_of_key}
"""Spaces whose keys can be read, with the function that returns a block's features."""

_TABLE = TypeAdapter(dict[Key, PositiveMs])


class PublishedBlock(KeyFeatures):
    """One block: its key in the published space, milliseconds as published, and its features."""

    key: Key
    ms: PositiveMs


class PublishedLut(Value):
    """A published table of blocks, in order of key.

    Attributes:
        device: Short name of the device.
        title: Device as named by its source.
        space: One of `SPACES`.
        variant: Runtime and processor according to the source, such as `tflite-cpu`.
        source: Paper or repository that published the numbers.
        file_sha256: Digest of the published file.
        digest: Digest of all other fields.
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
        """Return it with its digest."""
        return self.model_copy(update={"digest": self._own_digest()})

    def __str__(self) -> str:
        """Return `published/device/space/variant`."""
        return f"{FOLDER}/{self.device}/{self.space}/{self.variant}"

    @cached_property
    def entry_ms(self) -> Mapping[str, float]:
        """Milliseconds of every block."""
        return {block.key: block.ms for block in self.blocks}

    @cached_property
    def features(self) -> Mapping[str, KeyFeatures]:
        """Features of every block."""
        return {block.key: KeyFeatures.of(block) for block in self.blocks}


def read_table(
    file: Path, device: str, source: str, licence: str, space: str, variant: str, title: str = ""
) -> PublishedLut:
    """Read a published table of one device: a JSON object of milliseconds by block key.

    Raises:
        UsageError: an unknown space.
        InvalidArtifactError: the file is missing, too large, no such object, or a key is not one of the
        space.
    """
    if space not in SPACES:
        raise UsageError(
            f"unknown space {space[:80]!r} of published tables; known: {', '.join(SPACES)}",
            code="unknown_space",
        )
    content = read_bytes(file, MAX_TABLE_BYTES, "give the file as it was published")
    try:
        table = _TABLE.validate_python(json.loads(content, object_pairs_hook=_unique_keys))
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
            f"{file}: not a table of {space} ({reason}); give a JSON object of milliseconds by block key",
            code="invalid_published_table",
        ) from error


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("two entries have the same key")
    return table


def write_published(lut: PublishedLut, root: Path) -> Path:
    """Write a published table and return its file; writing the same numbers again changes nothing.

    Raises:
        UsageError: another table has this name.
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
        existing = read_published(path)
        if existing.model_copy(update={"imported": lut.imported, "digest": lut.digest}) != lut:
            raise UsageError(f"{lut} exists and differs; give another --name", code="name_taken") from None
    except OSError as error:
        raise storage_error(f"{path} not written", error, "set BLOCKTIME_LUTS to another folder") from error
    return path


def read_published(path: Path) -> PublishedLut:
    """Read the published LUT in a file. Raises InvalidArtifactError."""
    return read_json(path, PublishedLut, 4 * MAX_TABLE_BYTES, "import it again")


def list_published(roots: Sequence[Path]) -> dict[str, Path]:
    """Return the files of all published LUTs by `published/device/space/variant`; the first root's wins."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in sorted(root.glob(f"{FOLDER}/*/*/*.json")):
            found.setdefault(path.relative_to(root).with_suffix("").as_posix(), path)
    return found


def load_published_lut(name: str, roots: Sequence[Path]) -> PublishedLut:
    """Return the published LUT with this name or path.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
        InvalidArtifactError: it is damaged or was edited.
    """
    known = list_published(roots)
    if name in known:
        return read_published(known[name])
    if Path(name).is_file():
        return read_published(Path(name))
    listed = shorten(sorted(known)) or "none; import one with bench lut import-published"
    raise UsageError(f"no published LUT {name[:120]!r}; there are {listed}", code="unknown_published_lut")
