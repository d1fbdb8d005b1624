"""A LUT in memory, its samples, and the four files it is stored in."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, UsageError, first_problem, shorten
from luts.format.latency import LatencyModel, Prediction
from luts.format.operator_latency import OperatorModel
from luts.format.schema import (
    MAX_BLOCKS,
    MAX_ENTRIES,
    MAX_MODELS,
    MAX_SAMPLES,
    Entry,
    LutFile,
    LutMeta,
    MeasuredModel,
    Value,
)

if TYPE_CHECKING:
    import pandas as pd


SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("segment", pa.int16(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),
        pa.field("model", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("copy", pa.int8(), nullable=False),
        pa.field("ns", pa.int64(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)
"""A load of a model is one (batch, segment, copy); copy 1 is the second load of the reference. `position` is
the place in the round's random order; `kept` is False for a batch that was rejected (throttled, or A/A
incompatible)."""

MAX_SAMPLE_NS = 10**13
"""Nearly three hours: no model on a phone takes as long."""

_ORDER = [(name, "ascending") for name in ("batch", "segment", "round", "position", "model", "copy", "ns")]


def normalise_samples(table: pa.Table) -> pa.Table:
    """Return the same rows under `SAMPLES_SCHEMA`, sorted, so that equal measurements give equal bytes.

    Raises InvalidArtifactError: missing or unknown columns, nulls, values out of range, or too many rows.
    """
    if set(table.column_names) != set(SAMPLES_SCHEMA.names):
        raise InvalidArtifactError(
            f"samples have columns {', '.join(table.column_names)[:200]}; "
            f"expected {', '.join(SAMPLES_SCHEMA.names)}",
            code="invalid_samples",
        )
    if not 0 < table.num_rows <= MAX_SAMPLES:
        raise InvalidArtifactError(
            f"samples have {table.num_rows} rows; 1 to {MAX_SAMPLES} are allowed", code="invalid_samples"
        )
    if any(table.column(name).null_count for name in SAMPLES_SCHEMA.names):
        raise InvalidArtifactError("samples have empty cells; fill every cell", code="invalid_samples")
    plain = table.select(SAMPLES_SCHEMA.names)
    model_index = SAMPLES_SCHEMA.get_field_index("model")
    try:
        plain = plain.set_column(model_index, "model", plain.column("model").cast(pa.string()))
        plain = plain.sort_by(_ORDER).combine_chunks()
        plain = plain.set_column(model_index, "model", plain.column("model").dictionary_encode())
        samples = plain.cast(SAMPLES_SCHEMA).unify_dictionaries().combine_chunks()
    except (pa.ArrowException, ValueError) as error:
        raise InvalidArtifactError(
            f"samples do not fit their schema: {str(error).splitlines()[0]}", code="invalid_samples"
        ) from error
    _check_ranges(samples)
    return samples


def _check_ranges(samples: pa.Table) -> None:
    limits = {
        "batch": (0, 2**31 - 1),
        "segment": (0, 2**15 - 1),
        "round": (0, 2**31 - 1),
        "position": (0, 2**15 - 1),
        "copy": (0, 1),
        "ns": (1, MAX_SAMPLE_NS),
    }
    for name, (low, high) in limits.items():
        extremes = pc.min_max(samples.column(name)).as_py()
        if extremes["min"] < low or extremes["max"] > high:
            raise InvalidArtifactError(
                f"samples column {name} spans {extremes['min']} to {extremes['max']}; "
                f"allowed is {low} to {high}",
                code="invalid_samples",
            )


class Network(Protocol):
    """A network that a LUT can price, such as `search.spaces.Arch`."""

    def keys(self) -> Sequence[str]:
        """Return the keys of its blocks."""
        ...

    def boundary_bytes(self) -> int:
        """Return the bytes moved between them."""
        ...


@dataclass(frozen=True)
class Lut:
    """A latency look-up table: entries in order of key, models in order of id, and normalised samples."""

    meta: LutMeta
    entries: tuple[Entry, ...]
    models: tuple[MeasuredModel, ...]
    samples: pa.Table

    @cached_property
    def reference(self) -> MeasuredModel:
        """The model that all latencies are ratios to."""
        return next(model for model in self.models if model.model_id == self.meta.reference_id)

    @cached_property
    def latency_model(self) -> LatencyModel:
        """The latency model that prices networks."""
        return LatencyModel.of(self.meta, self.entries, self.models)

    @cached_property
    def operator_model(self) -> OperatorModel | None:
        """The model that prices networks by their operators, None for a LUT of a search space."""
        fit = self.meta.operators
        return OperatorModel.of(self.meta, fit, self.entries, self.models) if fit else None

    def predict(self, network: Network | Sequence[str], boundary_bytes: int | None = None) -> Prediction:
        """Predict the latency of a network in milliseconds, with its interval.

        Args:
            network: An architecture, or the keys of its blocks in any order.
            boundary_bytes: Bytes moved between blocks that are given by their keys.

        Raises:
            UsageError: a block has no entry, or `boundary_bytes` is missing although the LUT prices them.
        """
        if self.operator_model and self.meta.operators and not isinstance(network, str):
            keys = network if isinstance(network, Sequence) else network.keys()
            return self.operator_model.predict(keys, self.meta.operators)
        if not isinstance(network, Sequence):
            return self.latency_model.predict(network.keys(), network.boundary_bytes())
        if isinstance(network, str):
            raise UsageError(
                f"{network[:80]!r} is a string; give an architecture, or a list of block keys",
                code="not_a_network",
            )
        if boundary_bytes is None and self.meta.transfer_ms_per_mib:
            raise UsageError(
                "this LUT prices data moved between blocks; give boundary_bytes with the keys",
                code="missing_boundary_bytes",
            )
        return self.latency_model.predict(network, boundary_bytes or 0)

    def to_pandas(self, table: Literal["entries", "models", "samples"] = "entries") -> pd.DataFrame:
        """Return one of its tables as a data frame, with the columns of the LUT's file."""
        import pandas as pd

        if table == "samples":
            samples: pd.DataFrame = self.samples.to_pandas()
            return samples
        rows: Sequence[Value] = self.entries if table == "entries" else self.models
        columns = (Entry if table == "entries" else MeasuredModel).model_fields
        frame = pd.DataFrame([row.model_dump() for row in rows], columns=list(columns))
        return frame.astype({"migrated_operations": "Int64"})


META_FILE = "lut.json"
ENTRIES_FILE = "entries.csv"
MODELS_FILE = "models.csv"
SAMPLES_FILE = "samples.parquet"

_DIGESTED = {"entries": ENTRIES_FILE, "models": MODELS_FILE, "samples": SAMPLES_FILE}
"""Files by the field of `Digests` that holds their sha256."""

MAX_FILE_BYTES = {
    META_FILE: 8 << 20,
    ENTRIES_FILE: 16 << 20,
    MODELS_FILE: 256 << 20,
    SAMPLES_FILE: 512 << 20,
}
"""Files are not read beyond this; row counts and field limits bound their contents."""

MAX_ID_BYTES = 64
"""Longest model name in samples, as in `ModelId`."""

_LATER_COLUMNS = {
    "params", "depthwise_macs", "migrated_operations", "identified", "measured_share", "operator_ms",
}  # fmt: skip
"""Columns that the first LUTs lack; rows without them get the fields' defaults."""

_FORMER_COLUMNS = {b"moved": b"migrated_operations"}
"""Former names of columns, and their names now."""

Row = TypeVar("Row", bound=Value)


def encode(lut: Lut) -> dict[str, bytes]:
    """Return the content of the four files by name, lut.json last."""
    files = {
        ENTRIES_FILE: _encode_csv(Entry, lut.entries),
        MODELS_FILE: _encode_csv(MeasuredModel, lut.models),
        SAMPLES_FILE: _encode_samples(lut.samples),
    }
    return {**files, META_FILE: encode_meta(lut.meta, files)}


def encode_meta(meta: LutMeta, files: Mapping[str, bytes]) -> bytes:
    """Return lut.json for the other three files: sorted keys, their digests, and its own."""
    document = meta.model_dump(mode="json")
    document["sha256"] = {field: _sha256(files[name]) for field, name in _DIGESTED.items()}
    document["digest"] = _sha256(_canonical(document))
    return _canonical(document)


def decode(files: Mapping[str, bytes]) -> Lut:
    """Read a LUT from its four files. Raises InvalidArtifactError: one is damaged or was edited."""
    meta = decode_meta(files[META_FILE])
    for field, name in _DIGESTED.items():
        if _sha256(files[name]) != getattr(meta.sha256, field):
            raise InvalidArtifactError(
                f"{name} differs from its digest in {META_FILE}: it was edited or truncated; restore it",
                code="digest_mismatch",
            )
    return Lut(
        meta=LutMeta.of(meta),
        entries=_decode_csv(Entry, files[ENTRIES_FILE], ENTRIES_FILE, MAX_ENTRIES),
        models=_decode_csv(MeasuredModel, files[MODELS_FILE], MODELS_FILE, MAX_MODELS),
        samples=_decode_samples(files[SAMPLES_FILE]),
    )


def current_columns(table: bytes) -> bytes:
    """Return a CSV table with today's names of its columns; its rows are not read."""
    header, newline, rows = table.partition(b"\n")
    return b",".join(_FORMER_COLUMNS.get(name, name) for name in header.split(b",")) + newline + rows


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def decode_meta(content: bytes) -> LutFile:
    """Read lut.json alone and check its own digest. Raises InvalidArtifactError."""
    try:
        document = json.loads(content)
        meta = LutFile.model_validate(document)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(
            f"{META_FILE} is not a LUT description: {_first_line(error)}", code="invalid_lut_file"
        ) from error
    unsigned = {name: value for name, value in document.items() if name != "digest"}
    if _sha256(_canonical(unsigned)) != meta.digest or _canonical(document) != content:
        raise InvalidArtifactError(
            f"{META_FILE} differs from its own digest: it was edited; restore it", code="digest_mismatch"
        )
    return meta


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_problem(error, "document")
    return str(error).splitlines()[0][:200]


def _encode_csv(schema: type[Value], rows: Sequence[Value]) -> bytes:
    """Write rows as CSV: floats by repr (exact), None as an empty cell, lists joined by spaces.

    A later column is left out where it would be empty, so that LUTs from before it stay the same.
    """
    columns = [
        name
        for name in schema.model_fields
        if name not in _LATER_COLUMNS or any(getattr(row, name) is not None for row in rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (getattr(row, name) for name in columns)
        writer.writerow([" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells])
    return text.getvalue().encode()


def _decode_csv(schema: type[Row], content: bytes, name: str, max_rows: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    # Of the whole process, 128 KiB by default: fewer than the blocks of one model may have.
    csv.field_size_limit(max(csv.field_size_limit(), 256 * MAX_BLOCKS))
    try:
        reader = csv.reader(io.StringIO(current_columns(content).decode(), newline=""), strict=True)
        header = next(reader, [])
        columns = [name for name in schema.model_fields if name in header or name not in _LATER_COLUMNS]
        if header != columns:
            raise ValueError(f"its columns are {', '.join(header)[:200]}; expected {', '.join(columns)}")
        for cells in reader:
            if len(rows) == max_rows:
                raise ValueError(f"more than {max_rows} rows")
            if len(cells) != len(columns):
                raise ValueError(f"line {reader.line_num} has {len(cells)} cells, not {len(columns)}")
            rows.append(schema.model_validate(_typed(schema, dict(zip(columns, cells, strict=True)))))
    except (ValueError, csv.Error) as error:
        raise InvalidArtifactError(
            f"{name} is damaged after {len(rows)} rows: {_first_line(error)}", code="invalid_lut_file"
        ) from error
    return tuple(rows)


def _typed(schema: type[Value], cells: dict[str, str]) -> dict[str, object]:
    typed: dict[str, object] = {}
    for name, cell in cells.items():
        if cell == "" and type(None) in getattr(schema.model_fields[name].annotation, "__args__", ()):
            typed[name] = None
        elif name in ("blocks", "operator_ms"):
            typed[name] = tuple(cell.split(" "))
        else:
            typed[name] = cell
    return typed


def _encode_samples(samples: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(samples, sink, compression="zstd", version="2.6", store_schema=True)
    return sink.getvalue()


def _check_ids(models: pa.DictionaryArray) -> None:
    """Check lengths before rows are unpacked: a small file can repeat one long string in every row."""
    if not pa.types.is_dictionary(models.type) or not pa.types.is_string(models.type.value_type):
        raise ValueError("its models are not strings")
    longest = pc.max(pc.binary_length(models.dictionary)).as_py() or 0
    if longest > MAX_ID_BYTES:
        raise ValueError(f"a model's name has {longest} bytes")


def _decode_samples(content: bytes) -> pa.Table:
    try:
        # In this thread only: another one may drop the last reference to `content` while the interpreter ends,
        # which aborts the process.
        file = pq.ParquetFile(io.BytesIO(content), pre_buffer=False, read_dictionary=["model"])
        rows = file.metadata.num_rows
        if not 0 < rows <= MAX_SAMPLES or file.metadata.num_columns != len(SAMPLES_SCHEMA):
            raise ValueError(f"{rows} rows in {file.metadata.num_columns} columns")
        unpacked_bytes = sum(
            file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)
        )
        if unpacked_bytes > 2 * MAX_FILE_BYTES[SAMPLES_FILE]:
            raise ValueError(f"{unpacked_bytes} bytes unpacked")
        texts = [
            field.name
            for field in file.schema_arrow
            if not pa.types.is_integer(field.type) and not pa.types.is_boolean(field.type)
        ]
        if texts != ["model"]:
            raise ValueError(f"columns other than model hold strings: {shorten(texts)}")
        table = file.read(use_threads=False)
        for chunk in table.column("model").chunks:
            _check_ids(chunk)
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:  # KeyError: no column `model`
        raise InvalidArtifactError(
            f"{SAMPLES_FILE} is not a sample table: {_first_line(error)}", code="invalid_lut_file"
        ) from error
    return normalise_samples(table)
