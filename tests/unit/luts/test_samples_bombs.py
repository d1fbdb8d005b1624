"""Small files of samples that would unpack to far more than their size are refused before they do."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luts.format.lut import _decode_samples
from tests.support.errors import raises

ROWS = 1000


def packed(**columns):
    plain = {
        name: pa.array([0] * ROWS, pa.int32()) for name in ("batch", "segment", "round", "position", "copy")
    }
    whole = plain | {
        "model": pa.array(["a"] * ROWS),
        "ns": pa.array([1] * ROWS),
        "kept": pa.array([True] * ROWS),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(whole | columns), file, compression="zstd", use_dictionary=True)
    return file.getvalue()


def long_text(dictionary):
    values = pa.array(["x" * 100_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), values)
    return repeated if dictionary else repeated.cast(pa.string())


def test_what_is_not_one_is_read():
    assert _decode_samples(packed()).num_rows == ROWS


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_long_name_in_every_row(dictionary):
    content = packed(model=long_text(dictionary))
    assert len(content) < 200_000 < ROWS * 100_000
    with raises("invalid_lut_file"):
        _decode_samples(content)


@pytest.mark.parametrize("column", ["ns", "kept", "batch"])
def test_texts_where_numbers_stand(column):
    with raises("invalid_lut_file"):
        _decode_samples(packed(**{column: long_text(False)}))


def test_numbers_where_models_stand():
    with raises("invalid_lut_file"):
        _decode_samples(packed(model=pa.array([1] * ROWS)))
