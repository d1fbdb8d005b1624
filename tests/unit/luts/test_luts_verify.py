"""No edit of a written LUT goes unseen, be it careless (digests) or careful (digests made anew)."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from luts.build import build_lut
from luts.format.errors import InvalidArtifactError
from luts.format.lut import (
    ENTRIES_FILE,
    MAX_FILE_BYTES,
    META_FILE,
    MODELS_FILE,
    SAMPLES_FILE,
    Lut,
    decode,
    encode,
)
from luts.format.schema import Conformal
from luts.format.store import LutStore
from luts.verify import rebuild, verify_lut, verify_values
from orchestrator.cli.main import exit_code
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world

FILES = (META_FILE, ENTRIES_FILE, MODELS_FILE, SAMPLES_FILE)


@pytest.fixture(scope="module")
def lut() -> Lut:
    generator = np.random.default_rng(0)
    world = make_world(generator, slots=4)
    study = make_study(generator, world, designs=6, heldout=9, removals=1, segments=2, rounds=6)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


def written(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_a_written_lut_verifies(lut: Lut, tmp_path: Path) -> None:
    assert verify_lut(LutStore([tmp_path]).write(lut)) == lut


def test_a_lut_rebuilt_is_what_its_samples_say(lut: Lut) -> None:
    first, *others = lut.entries
    edited = replace(lut, entries=(first.model_copy(update={"ms": 2 * first.ms}), *others))
    assert rebuild(edited) == lut
    renamed = rebuild(lut, "another")
    assert renamed.meta.device == lut.meta.device.model_copy(update={"name": "another"})
    assert renamed.entries == lut.entries


@pytest.mark.parametrize("name", FILES)
def test_every_edited_byte_is_seen(lut: Lut, name: str) -> None:
    files = encode(lut)
    content = files[name]
    for position in range(0, len(content), max(1, len(content) // 400)):
        edited = bytearray(content)
        edited[position] ^= 1
        with pytest.raises(InvalidArtifactError, match=name):
            decode({**files, name: bytes(edited)})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["cut", "longer", "empty", "gone"])
def test_cut_padded_and_missing_files_are_seen(lut: Lut, name: str, change: str, tmp_path: Path) -> None:
    files = encode(lut)
    changed = {"cut": files[name][: len(files[name]) // 2], "longer": files[name] + b"\n", "empty": b""}
    folder = written(tmp_path, {**files, **({name: changed[change]} if change in changed else {})})
    if change == "gone":
        (folder / name).unlink()
    with pytest.raises(InvalidArtifactError, match=name) as caught:
        verify_lut(folder)
    assert exit_code(caught.value) == 6


def test_whitespace_in_lut_json_is_an_edit(lut: Lut) -> None:
    files = encode(lut)
    with raises("digest_mismatch"):
        decode({**files, META_FILE: files[META_FILE].replace(b'": ', b'":  ', 1)})


def test_an_oversized_file_is_not_read_whole(lut: Lut, tmp_path: Path) -> None:
    folder = written(tmp_path, encode(lut))
    with (folder / META_FILE).open("r+b") as stream:
        stream.truncate(MAX_FILE_BYTES[META_FILE] + 1)
    with raises("file_too_large"):
        verify_lut(folder)


def changed(lut: Lut, **parts: object) -> Lut:
    return Lut(
        **{"meta": lut.meta, "entries": lut.entries, "models": lut.models, "samples": lut.samples, **parts}
    )


def edits(lut: Lut) -> dict[str, tuple[Lut, str]]:
    """LUTs that lie, and what must be named."""
    entry, model, meta = lut.entries[0], lut.models[0], lut.meta
    heldout = meta.heldout_error
    assert heldout is not None
    removal = next(number for number, row in enumerate(lut.entries) if row.removal_ms is not None)

    def with_entry(number: int, **fields: object) -> Lut:
        rows = list(lut.entries)
        rows[number] = rows[number].model_copy(update=fields)
        return changed(lut, entries=tuple(rows))

    def with_meta(**fields: object) -> Lut:
        return changed(lut, meta=meta.model_copy(update=fields))

    ns = lut.samples.column("ns")
    slowed = pc.if_else(pc.equal(lut.samples.column("model"), model.model_id), pc.add(ns, 1000), ns)
    samples = lut.samples.set_column(
        lut.samples.column_names.index("ns"), lut.samples.schema.field("ns"), slowed
    )
    better = heldout.model_copy(update={"mape": 0.001})
    dearer = meta.prior[0].model_copy(update={"constant_ms": 9.0})
    return {
        "entry": (with_entry(0, ms=entry.ms * 1.0001), re.escape(f"ms of {entry.key}")),
        "interval": (with_entry(0, ci_high=entry.ci_high * 0.9), "ci_high"),
        "removal": (with_entry(removal, removal_ms=0.0), "removal_ms"),
        "loads": (with_entry(0, loads=entry.loads + 1), "loads"),
        "method": (with_entry(0, method="prior"), "method"),
        "macs": (with_entry(0, macs=entry.macs * 2), "entries.csv|lut.json"),
        "model": (
            changed(lut, models=(model.model_copy(update={"ms": model.ms * 1.001}), *lut.models[1:])),
            f"ms of {model.model_id}",
        ),
        "model left out": (changed(lut, models=lut.models[:-1]), "unknown models"),
        "order": (changed(lut, entries=lut.entries[::-1]), "in order of key"),
        "entry left out": (changed(lut, entries=lut.entries[1:]), "no features for block"),
        "sample": (changed(lut, samples=samples), MODELS_FILE),
        "reference": (with_meta(reference_ms=meta.reference_ms * 1.01), "reference_ms"),
        "noise floor": (with_meta(noise_floor=meta.noise_floor / 2), "noise_floor"),
        "held-out error": (with_meta(heldout_error=better), "heldout_error.mape"),
        "conformal": (with_meta(conformal=Conformal(half_width_90=0.0, half_width_95=None)), "conformal"),
        "base": (with_meta(base_ms=meta.base_ms + 0.01), "base_ms"),
        "prior": (with_meta(prior=(dearer, *meta.prior[1:])), r"prior\[0\].constant_ms"),
    }


EDITS = (
    *("entry", "interval", "removal", "loads", "method", "macs", "entry left out", "order"),
    *("model", "model left out", "sample"),
    *("reference", "noise floor", "held-out error", "conformal", "base", "prior"),
)


@pytest.mark.parametrize("name", EDITS)
def test_a_careful_edit_with_new_digests_is_seen(lut: Lut, name: str, tmp_path: Path) -> None:
    lying, message = edits(lut)[name]
    folder = written(tmp_path, encode(lying))
    with pytest.raises(InvalidArtifactError, match=message):
        verify_lut(folder)


def test_every_kind_of_edit_is_tried(lut: Lut) -> None:
    assert set(edits(lut)) == set(EDITS)


def test_differences_in_the_last_digits_pass(lut: Lut) -> None:
    entry = lut.entries[0]
    near = entry.model_copy(update={"ms": entry.ms * (1 + 1e-12)})
    verify_values(changed(lut, entries=(near, *lut.entries[1:])))
