"""Files of a LUT: round trips, older files, and files that are refused."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luts.build import build_lut
from luts.format.lut import (
    ENTRIES_FILE,
    META_FILE,
    MODELS_FILE,
    SAMPLES_FILE,
    Lut,
    _decode_samples,
    decode,
    encode,
    encode_meta,
)
from luts.format.schema import MAX_BLOCKS, MAX_COUNT, Entry, KeyFeatures, LutInputs, MeasuredModel
from luts.verify import verify_lut, verify_values
from tests.support.errors import raises
from tests.support.lut_world import lut_inputs, model_spec, small_study


@pytest.fixture(scope="module")
def lut() -> Lut:
    return small_study(removals=1).lut()


KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=160)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
MS = st.floats(0, 1e7)
COUNTS = st.integers(0, MAX_COUNT)
SIGNED = st.none() | st.floats(allow_nan=False, allow_infinity=False)

ENTRIES = st.builds(
    Entry,
    key=KEYS,
    ms=MS,
    ci_low=MS,
    ci_high=MS,
    removal_ms=SIGNED,
    removal_ci_low=SIGNED,
    removal_ci_high=SIGNED,
    loads=COUNTS,
    rounds=COUNTS,
    method=st.sampled_from(["design", "prior"]),
    kind=NAMES,
    macs=COUNTS,
    traffic_bytes=COUNTS,
    params=COUNTS,
    depthwise_macs=COUNTS,
    migrated_operations=st.none() | COUNTS,
)
MODELS = st.builds(
    MeasuredModel,
    model_id=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    arch=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    blocks=st.lists(KEYS, min_size=1, max_size=6).map(tuple),
    boundary_bytes=COUNTS,
    artifact_sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    split=st.just("fit"),
    role=st.just("removal"),
    base_id=st.just("base"),
    removed_key=KEYS,
    migrated_operations=st.none() | COUNTS,
    ms=st.floats(1e-9, 1e7),
    ci_low=MS,
    ci_high=MS,
    loads=COUNTS,
    rounds=COUNTS,
)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(ENTRIES, max_size=4), models=st.lists(MODELS, max_size=4))
def test_round_trip(lut: Lut, entries: list[Entry], models: list[MeasuredModel]) -> None:
    written = Lut(meta=lut.meta, entries=tuple(entries), models=tuple(models), samples=lut.samples)
    read = decode(encode(written))
    assert read == written
    assert encode(read) == encode(written)


def test_columns_without_placement(lut: Lut) -> None:
    lut = replace(lut, entries=_before_identification(lut))
    files = encode(lut)
    assert files[ENTRIES_FILE].splitlines()[0].endswith(b",kind,macs,traffic_bytes,params,depthwise_macs")
    assert b",migrated_operations" not in files[MODELS_FILE]
    entries = tuple(entry.model_copy(update={"migrated_operations": 0}) for entry in lut.entries)
    placed = replace(lut, entries=entries)
    assert encode(placed)[ENTRIES_FILE].splitlines()[0].endswith(b",depthwise_macs,migrated_operations")


def test_former_column_name_is_read(tmp_path: Path) -> None:
    study = small_study(seed=1, removals=1)
    specs = [
        spec.model_copy(update={"migrated_operations": 2 if spec.role == "removal" else None})
        for spec in study.models
    ]
    lut = build_lut(study.inputs, specs, study.estimation, study.features)
    files = encode(lut)
    for name in (ENTRIES_FILE, MODELS_FILE):
        assert b",migrated_operations" in files[name]
        files[name] = files[name].replace(b",migrated_operations", b",moved")
    files[META_FILE] = encode_meta(lut.meta, files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert verify_lut(tmp_path) == decode(files) == lut


def _before_identification(lut: Lut) -> tuple[Entry, ...]:
    return tuple(entry.model_copy(update={"identified": None}) for entry in lut.entries)


def test_lut_without_identification_verifies(lut: Lut) -> None:
    old = replace(lut, entries=_before_identification(lut))
    assert decode(encode(old)) == old
    verify_values(old)
    half = replace(lut, entries=(lut.entries[0], *_before_identification(lut)[1:]))
    with raises("not_from_samples"):
        verify_values(half)


def test_description_without_conditions_is_read(lut: Lut) -> None:
    files = encode(lut)
    document = json.loads(files[META_FILE])
    later = ("fixed_performance", "sustained_performance", "cores", "input_buffers", "reference_usage")
    for name in ("caveats", "qos", "keep_warm", "failures", "digest", *later):
        del document[name]

    def canonical() -> bytes:
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()

    document["digest"] = hashlib.sha256(canonical()).hexdigest()
    assert decode({**files, META_FILE: canonical()}) == lut


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([META_FILE, ENTRIES_FILE, MODELS_FILE, SAMPLES_FILE]),
    garbage=st.binary(max_size=300),
)
def test_garbage_is_refused(lut: Lut, name: str, garbage: bytes) -> None:
    with raises("invalid_lut_file"):
        decode(
            signed({**encode(lut), name: garbage}, lut)
            if name != META_FILE
            else {**encode(lut), name: garbage}
        )


def signed(files: dict[str, bytes], lut: Lut) -> dict[str, bytes]:
    """Return the files with a lut.json that has their digests."""
    return {**files, META_FILE: encode_meta(lut.meta, files)}


def first_ms_as(value: bytes) -> Callable[[bytes, Lut], bytes]:
    return lambda table, lut: table.replace(repr(lut.entries[0].ms).encode(), value, 1)


MALFORMED: dict[str, tuple[str, Callable[[bytes, Lut], bytes]]] = {
    "column under both names": (
        ENTRIES_FILE,
        lambda table, _: table.replace(b"\n", b",moved,migrated_operations\n", 1),
    ),
    "no removed_key": (MODELS_FILE, lambda table, _: table.replace(b",removed_key", b"", 1)),
    "no role": (MODELS_FILE, lambda table, _: table.replace(b",role", b"", 1)),
    "short row of entries": (ENTRIES_FILE, lambda table, _: table.rstrip(b"\n").rpartition(b",")[0] + b"\n"),
    "short row of models": (MODELS_FILE, lambda table, _: table.rstrip(b"\n").rpartition(b",")[0] + b"\n"),
    "infinite latency": (ENTRIES_FILE, first_ms_as(b"inf")),
    "latency of nan": (ENTRIES_FILE, first_ms_as(b"nan")),
    "negative latency": (ENTRIES_FILE, first_ms_as(b"-1.0")),
    "deep JSON": (META_FILE, lambda *_: b"[" * 500_000),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_file_is_refused(lut: Lut, case: str) -> None:
    name, change = MALFORMED[case]
    files = encode(lut)
    files[name] = change(files[name], lut)
    with raises("invalid_lut_file"):
        decode(files if name == META_FILE else signed(files, lut))


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
    """A column that repeats a text of 100 kB, as a dictionary or written out."""
    values = pa.array(["x" * 100_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), values)
    return repeated if dictionary else repeated.cast(pa.string())


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *(("model", long_text(dictionary)) for dictionary in (True, False)),
        *((name, long_text(dictionary=False)) for name in ("ns", "kept", "batch")),
        ("model", pa.array([1] * ROWS)),
    ],
)
def test_samples_that_unpack_to_much_more_are_refused(column, values):
    assert _decode_samples(packed()).num_rows == ROWS
    content = packed(**{column: values})
    assert len(content) < 200_000
    with raises("invalid_lut_file"):
        _decode_samples(content)


def test_samples_without_models_are_refused():
    table = pq.read_table(io.BytesIO(packed())).rename_columns(
        ["batch", "segment", "round", "position", "copy", "modem", "ns", "kept"]
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    with raises("invalid_lut_file"):
        _decode_samples(file.getvalue())


def refused(**fields: Any) -> None:
    with pytest.raises(ValidationError):
        LutInputs.model_validate({**lut_inputs().model_dump(), **fields})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Upper", "x" * 65, "a\n"])
def test_invalid_name_is_refused(name: str) -> None:
    refused(space=name)
    refused(variant=name)
    refused(device={**lut_inputs().device.model_dump(), "name": name})


def test_invalid_inputs_are_refused() -> None:
    refused(surprise=1)
    refused(created="yesterday")
    refused(measured="guessed")
    refused(policy={"rounds": float("nan")})
    refused(policy={f"constant{number}": 1 for number in range(65)})
    refused(policy={"text": "x" * 257})


@pytest.mark.parametrize("key", ["two words", "", "x" * 161, "tab\t", "ümlaut", "line\n"])
def test_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        model_spec("m", [key], "design")


def test_number_of_blocks_is_bounded() -> None:
    model_spec("m", ["a"] * MAX_BLOCKS, "design")
    for blocks in ([], ["a"] * (MAX_BLOCKS + 1)):
        with pytest.raises(ValidationError):
            model_spec("m", blocks, "design")


def test_most_and_longest_blocks_survive_their_file(lut: Lut) -> None:
    longest = ("k" * 160,) * MAX_BLOCKS
    model = lut.models[0].model_copy(update={"blocks": longest})
    assert decode(encode(replace(lut, models=(model,)))).models[0].blocks == longest


@pytest.mark.parametrize(
    ("role", "extra"),
    [
        ("removal", {}),
        ("removal", {"base_id": "b"}),
        ("design", {"migrated_operations": "0"}),
        ("design", {"base_id": "b", "removed_key": "k"}),
        ("heldout", {"split": "fit"}),
        ("design", {"split": "heldout"}),
    ],
)
def test_contradictory_role_is_refused(role: str, extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model_spec("m", ["a"], role, **extra)


def test_values_are_frozen_and_counts_bounded() -> None:
    features = KeyFeatures(kind="conv", macs=1, traffic_bytes=2)
    with pytest.raises(ValidationError):
        features.macs = 3
    with pytest.raises(ValidationError):
        KeyFeatures(kind="conv", macs=-1, traffic_bytes=2)
    with pytest.raises(ValidationError):
        KeyFeatures(kind="conv", macs=2**60, traffic_bytes=2)
