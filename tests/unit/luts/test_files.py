"""Files of a LUT: round trips, older files, and files that are refused."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.support.lut_world import lut_inputs, make_study, make_world, model_spec


@pytest.fixture(scope="module")
def lut() -> Lut:
    generator = np.random.default_rng(0)
    study = make_study(generator, make_world(generator, slots=3), designs=4, removals=1, segments=1, rounds=5)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


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
def test_every_value_comes_back(lut: Lut, entries: list[Entry], models: list[MeasuredModel]) -> None:
    written = Lut(meta=lut.meta, entries=tuple(entries), models=tuple(models), samples=lut.samples)
    read = decode(encode(written))
    assert read == written
    assert encode(read) == encode(written)


def test_lut_without_placement_has_the_first_columns(lut: Lut) -> None:
    lut = replace(lut, entries=_before_identification(lut))
    files = encode(lut)
    assert files[ENTRIES_FILE].splitlines()[0].endswith(b",kind,macs,traffic_bytes,params,depthwise_macs")
    assert b",migrated_operations" not in files[MODELS_FILE]
    entries = tuple(entry.model_copy(update={"migrated_operations": 0}) for entry in lut.entries)
    placed = replace(lut, entries=entries)
    assert encode(placed)[ENTRIES_FILE].splitlines()[0].endswith(b",depthwise_macs,migrated_operations")


def test_former_column_moved_is_read(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    study = make_study(generator, make_world(generator, slots=3), designs=4, removals=1, segments=1, rounds=5)
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


def test_a_column_under_both_its_names_is_refused(lut: Lut) -> None:
    files = encode(lut)
    header, rows = files[ENTRIES_FILE].split(b"\n", 1)
    files[ENTRIES_FILE] = header + b",moved,migrated_operations\n" + rows
    files[META_FILE] = encode_meta(lut.meta, files)
    with raises("invalid_lut_file"):
        decode(files)


def _before_identification(lut: Lut) -> tuple[Entry, ...]:
    return tuple(entry.model_copy(update={"identified": None}) for entry in lut.entries)


def test_lut_without_identification_verifies(lut: Lut) -> None:
    old = replace(lut, entries=_before_identification(lut))
    assert decode(encode(old)) == old
    verify_values(old)
    half = replace(lut, entries=(lut.entries[0], *_before_identification(lut)[1:]))
    with raises("not_from_samples"):
        verify_values(half)


@pytest.mark.parametrize("column", ["removed_key", "role"])
def test_no_other_column_may_be_missing(lut: Lut, column: str) -> None:
    files = encode(replace(lut, models=()))
    files[MODELS_FILE] = files[MODELS_FILE].replace(f",{column}".encode(), b"")
    files[META_FILE] = encode_meta(lut.meta, files)
    with raises("invalid_lut_file"):
        decode(files)


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
def test_garbage_is_an_invalid_artifact(lut: Lut, name: str, garbage: bytes) -> None:
    files = encode(lut)
    files[name] = garbage
    if name != META_FILE:
        files[META_FILE] = encode_meta(lut.meta, files)
    with raises("invalid_lut_file"):
        decode(files)


def test_deep_json_does_not_crash(lut: Lut) -> None:
    with raises("invalid_lut_file"):
        decode({**encode(lut), META_FILE: b"[" * 500_000})


@pytest.mark.parametrize("name", [ENTRIES_FILE, MODELS_FILE])
def test_a_signed_but_malformed_table_names_the_row(lut: Lut, name: str) -> None:
    files = encode(lut)
    lines = files[name].split(b"\n")
    lines[2] = lines[2].rsplit(b",", 1)[0]
    files[name] = b"\n".join(lines)
    files[META_FILE] = encode_meta(lut.meta, files)
    with raises("invalid_lut_file"):
        decode(files)


def test_infinite_and_negative_latencies_are_refused(lut: Lut) -> None:
    for bad in (b"inf", b"nan", b"-1.0"):
        files = encode(lut)
        first = lut.entries[0]
        files[ENTRIES_FILE] = files[ENTRIES_FILE].replace(repr(first.ms).encode(), bad, 1)
        files[META_FILE] = encode_meta(lut.meta, files)
        with raises("invalid_lut_file"):
            decode(files)


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


def refused(**fields: Any) -> None:
    with pytest.raises(ValidationError):
        LutInputs.model_validate({**lut_inputs().model_dump(), **fields})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Upper", "x" * 65, "a\n"])
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    refused(space=name)
    refused(variant=name)
    refused(device={**lut_inputs().device.model_dump(), "name": name})


def test_foreign_fields_dates_and_numbers_are_refused() -> None:
    refused(surprise=1)
    refused(created="yesterday")
    refused(measured="guessed")
    refused(policy={"rounds": float("nan")})
    refused(policy={f"constant{number}": 1 for number in range(65)})
    refused(policy={"text": "x" * 257})


@pytest.mark.parametrize("key", ["two words", "", "x" * 161, "tab\t", "ümlaut", "line\n"])
def test_keys_are_printable_and_without_spaces(key: str) -> None:
    with pytest.raises(ValidationError):
        model_spec("m", [key], "design")


def test_a_network_has_a_bounded_number_of_blocks() -> None:
    model_spec("m", ["a"] * MAX_BLOCKS, "design")
    for blocks in ([], ["a"] * (MAX_BLOCKS + 1)):
        with pytest.raises(ValidationError):
            model_spec("m", blocks, "design")


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
def test_roles_that_contradict_themselves_are_refused(role: str, extra: dict[str, Any]) -> None:
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
