"""The samples table: one row for every timed run of a model, in the order and conditions it ran."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from luts.format.errors import InvalidArtifactError
from luts.format.values import MAX_SAMPLES

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
