"""A LUT in memory, its samples, and the four files it is written to."""

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

from luts.format.errors import InvalidArtifactError, UsageError, few, first_problem
from luts.format.latency import LatencyModel, Prediction
from luts.format.schema import (
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
"""Nearly three hours: nothing that a phone is asked to run takes as long."""

_ORDER = [(name, "ascending") for name in ("batch", "segment", "round", "position", "model", "copy", "ns")]


def normalise_samples(table: pa.Table) -> pa.Table:
    """The same rows under `SAMPLES_SCHEMA`, sorted, so that equal measurements give equal bytes.

    Raises InvalidArtifactError for missing or foreign columns, nulls, values out of range, too many rows.
    """
    if set(table.column_names) != set(SAMPLES_SCHEMA.names):
        raise InvalidArtifactError(
            f"samples have columns {', '.join(table.column_names)[:200]}; "
            f"expected {', '.join(SAMPLES_SCHEMA.names)}"
        )
    if not 0 < table.num_rows <= MAX_SAMPLES:
        raise InvalidArtifactError(f"samples have {table.num_rows} rows; from 1 to {MAX_SAMPLES} are allowed")
    if any(table.column(name).null_count for name in SAMPLES_SCHEMA.names):
        raise InvalidArtifactError("samples hold empty cells; every cell must be filled")
    plain = table.select(SAMPLES_SCHEMA.names)
    model_index = SAMPLES_SCHEMA.get_field_index("model")
    try:
        plain = plain.set_column(model_index, "model", plain.column("model").cast(pa.string()))
        plain = plain.sort_by(_ORDER).combine_chunks()
        plain = plain.set_column(model_index, "model", plain.column("model").dictionary_encode())
        samples = plain.cast(SAMPLES_SCHEMA).unify_dictionaries().combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InvalidArtifactError(
            f"samples do not fit their schema: {str(error).splitlines()[0]}"
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
                f"allowed is {low} to {high}"
            )


def kept_samples(samples: pa.Table) -> pa.Table:
    """Rows of batches that were not rejected."""
    return samples.filter(samples.column("kept"))


class Network(Protocol):
    """Whatever a LUT can price, such as `search.spaces.Arch`."""

    def keys(self) -> Sequence[str]:
        """Its blocks."""
        ...

    def boundary_bytes(self) -> int:
        """Data handed on between them."""
        ...


@dataclass(frozen=True)
class Lut:
    """Entries in order of key, models in order of id, samples as `luts.format.lut.normalise_samples` leaves
    them."""

    meta: LutMeta
    entries: tuple[Entry, ...]
    models: tuple[MeasuredModel, ...]
    samples: pa.Table

    @cached_property
    def reference(self) -> MeasuredModel:
        """The model that all were measured beside."""
        return next(model for model in self.models if model.model_id == self.meta.reference_id)

    @cached_property
    def latency_model(self) -> LatencyModel:
        """What prices networks."""
        return LatencyModel.of(self.meta, self.entries, self.models)

    def predict(self, network: Network | Sequence[str], boundary_bytes: int | None = None) -> Prediction:
        """Latency of a network in milliseconds, with its interval.

        Args:
            network: An architecture, or the keys of its blocks in any order.
            boundary_bytes: What blocks given by their keys hand on to each other; an architecture knows.

        Raises:
            UsageError: a block has no entry, or `boundary_bytes` is missing where the LUT has a price for them.
        """
        if not isinstance(network, Sequence):
            return self.latency_model.predict(network.keys(), network.boundary_bytes())
        if isinstance(network, str):
            raise UsageError(f"{network[:80]!r} is one text; give an architecture, or a list of block keys")
        if boundary_bytes is None and self.meta.transfer_ms_per_mib:
            raise UsageError(
                "this LUT prices data handed on between blocks; give boundary_bytes with the keys"
            )
        return self.latency_model.predict(network, boundary_bytes or 0)

    def to_pandas(self, table: Literal["entries", "models", "samples"] = "entries") -> pd.DataFrame:
        """One of its tables as a data frame, with the columns of the LUT's file."""
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

MAX_FILE_BYTES = {
    META_FILE: 8 << 20,
    ENTRIES_FILE: 16 << 20,
    MODELS_FILE: 256 << 20,
    SAMPLES_FILE: 512 << 20,
}
"""Read no further than this: a row count and field limits bound what lies inside."""

MAX_ID_BYTES = 64
"""Of a model's name in samples, as `ModelId` has it."""

_LATER_COLUMNS = {"params", "depthwise_macs", "migrated_operations", "identified", "measured_share"}
"""Columns that the first LUTs do not have; the fields' defaults are the values of a row without."""

_FORMER_COLUMNS = {b"moved": b"migrated_operations"}
"""Names of columns in LUTs of before, and what they are called now."""

Row = TypeVar("Row", bound=Value)


def encode(lut: Lut) -> dict[str, bytes]:
    """File name to content, lut.json last."""
    files = {
        ENTRIES_FILE: _encode_csv(Entry, lut.entries),
        MODELS_FILE: _encode_csv(MeasuredModel, lut.models),
        SAMPLES_FILE: _encode_samples(lut.samples),
    }
    return {**files, META_FILE: encode_meta(lut.meta, files)}


def encode_meta(meta: LutMeta, files: Mapping[str, bytes]) -> bytes:
    """lut.json over the given three files: sorted keys, and its own digest."""
    document = meta.model_dump(mode="json")
    document["sha256"] = {
        "entries": _sha256(files[ENTRIES_FILE]),
        "models": _sha256(files[MODELS_FILE]),
        "samples": _sha256(files[SAMPLES_FILE]),
    }
    document["digest"] = _sha256(_canonical(document))
    return _canonical(document)


def decode(files: Mapping[str, bytes]) -> Lut:
    """The LUT in four files. Raises InvalidArtifactError naming the file that is damaged or was edited."""
    meta = decode_meta(files[META_FILE])
    for name, digest in (
        (ENTRIES_FILE, meta.sha256.entries),
        (MODELS_FILE, meta.sha256.models),
        (SAMPLES_FILE, meta.sha256.samples),
    ):
        if _sha256(files[name]) != digest:
            raise InvalidArtifactError(
                f"{name} differs from its digest in {META_FILE}: it was edited or cut short; restore it"
            )
    return Lut(
        meta=LutMeta.of(meta),
        entries=_decode_csv(Entry, files[ENTRIES_FILE], ENTRIES_FILE, MAX_ENTRIES),
        models=_decode_csv(MeasuredModel, files[MODELS_FILE], MODELS_FILE, MAX_MODELS),
        samples=_decode_samples(files[SAMPLES_FILE]),
    )


def current_columns(table: bytes) -> bytes:
    """A table whose columns are called as they are now; its rows are not looked at."""
    header, newline, rows = table.partition(b"\n")
    return b",".join(_FORMER_COLUMNS.get(name, name) for name in header.split(b",")) + newline + rows


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def decode_meta(content: bytes) -> LutFile:
    """lut.json alone, its own digest checked. Raises InvalidArtifactError."""
    try:
        document = json.loads(content)
        meta = LutFile.model_validate(document)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(f"{META_FILE} is not a LUT description: {_first_line(error)}") from error
    unsigned = {name: value for name, value in document.items() if name != "digest"}
    if _sha256(_canonical(unsigned)) != meta.digest or _canonical(document) != content:
        raise InvalidArtifactError(f"{META_FILE} differs from its own digest: it was edited; restore it")
    return meta


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_problem(error, "document")
    return str(error).splitlines()[0][:200]


def _encode_csv(schema: type[Value], rows: Sequence[Value]) -> bytes:
    """Floats by repr (exact), None as an empty cell, lists joined by spaces.

    A later column is left out where it would be empty: LUTs of before it was there look the same.
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
        writer.writerow([" ".join(cell) if isinstance(cell, tuple) else cell for cell in cells])
    return text.getvalue().encode()


def _decode_csv(schema: type[Row], content: bytes, name: str, max_rows: int) -> tuple[Row, ...]:
    rows: list[Row] = []
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
            f"{name} is damaged after {len(rows)} rows: {_first_line(error)}"
        ) from error
    return tuple(rows)


def _typed(schema: type[Value], cells: dict[str, str]) -> dict[str, object]:
    typed: dict[str, object] = {}
    for name, cell in cells.items():
        if name == "blocks":
            typed[name] = tuple(cell.split(" "))
        elif cell == "" and type(None) in getattr(schema.model_fields[name].annotation, "__args__", ()):
            typed[name] = None
        else:
            typed[name] = cell
    return typed


def _encode_samples(samples: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(samples, sink, compression="zstd", version="2.6", store_schema=True)
    return sink.getvalue()


def _is_number(column: pa.DataType) -> bool:
    return bool(pa.types.is_integer(column) or pa.types.is_boolean(column))


def _check_ids(models: pa.DictionaryArray) -> None:
    """A long text that stands once in a small file may stand in every row: looked at before rows are unpacked."""
    if not pa.types.is_dictionary(models.type) or not pa.types.is_string(models.type.value_type):
        raise ValueError("its models are not texts")
    longest = pc.max(pc.binary_length(models.dictionary)).as_py() or 0
    if longest > MAX_ID_BYTES:
        raise ValueError(f"a model's name has {longest} bytes")


def _decode_samples(content: bytes) -> pa.Table:
    try:
        # In this thread alone: another one may drop the last reference to `content` while the interpreter ends,
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
        texts = [field.name for field in file.schema_arrow if not _is_number(field.type)]
        if texts != ["model"]:
            raise ValueError(f"other columns than model hold texts: {few(texts)}")
        table = file.read(use_threads=False)
        for chunk in table.column("model").chunks:
            _check_ids(chunk)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InvalidArtifactError(f"{SAMPLES_FILE} is not a sample table: {_first_line(error)}") from error
    return normalise_samples(table)
