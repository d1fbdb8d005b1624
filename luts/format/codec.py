"""The four files of a LUT: bytes to values and back. Equal LUTs give equal bytes; nothing here touches a
disk."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError
from luts.format.lut import Lut
from luts.format.messages import few, first_problem
from luts.format.samples import SAMPLES_SCHEMA, normalise_samples
from luts.format.schema import Entry, LutFile, LutMeta, MeasuredModel
from luts.format.values import MAX_ENTRIES, MAX_MODELS, MAX_SAMPLES, Value

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
