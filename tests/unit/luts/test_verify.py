"""Edits of a written LUT are detected, with old digests and with recomputed ones."""

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
from luts.format.schema import Conformal, LutInputs
from luts.format.store import LutStore, digest_of
from luts.published import PublishedBlock, PublishedLut, write_published
from luts.share.location import location
from luts.share.repository import Repository, pull, push
from luts.verify import check_sources, rebuild, verify_lut, verify_values
from orchestrator.cli.main import exit_code
from orchestrator.tasks.sources import Sources
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world
from tests.unit.tasks.test_sources import WORLD, made, slower

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


@pytest.fixture(scope="module")
def source() -> Lut:
    return made(name="pixel")


@pytest.fixture(scope="module")
def learned(source: Lut, tmp_path_factory: pytest.TempPathFactory) -> Lut:
    store = LutStore([tmp_path_factory.mktemp("source")])
    ref = store.resolve(str(store.write(source)))
    kept = Sources({ref: source}).stored_for([entry.key for entry in source.entries])
    return made(slower(WORLD, 3.0), 2, kept, designs=4, name="xiaomi")


def of_edited_source(learned: Lut) -> Lut:
    """Learned from entries that its source does not have; it verifies alone, since all follows from them."""
    (kept,) = learned.meta.sources
    first, *rest = kept.entry_ms
    assert first is not None
    other = kept.model_copy(update={"entry_ms": (1.01 * first, *rest)})
    inputs = LutInputs.of(learned.meta).model_copy(update={"sources": (other,)})
    return rebuild(replace(learned, meta=learned.meta.model_copy(update={"sources": inputs.sources})))


def test_learned_lut_verifies_without_its_sources(learned, source, tmp_path) -> None:
    mine, place, theirs = LutStore([tmp_path / "mine"]), tmp_path / "place", LutStore([tmp_path / "theirs"])
    repository = Repository(location(str(place)), pytest.fail)
    push(repository, mine.write(learned))
    pulled = pull(repository, "xiaomi", theirs)
    assert verify_lut(pulled.path) == learned
    (check,) = check_sources(learned, theirs)
    assert check.here == ""
    assert str(check).startswith(f"pixel/toy/executorch-xnnpack-fp32-t1/v1 ({check.digest[:12]}) is not on")
    done = bench("lut", "verify", "xiaomi", "--luts", theirs.roots[0])
    assert "is not on this machine" in " ".join(done.stdout.split()), done.stderr
    written = theirs.write(source)
    (check,) = check_sources(learned, theirs)
    ref = theirs.resolve(str(written))
    assert (check.here, check.digest) == (str(ref), digest_of(ref))


def test_entries_that_differ_from_the_source_are_refused(learned, source, tmp_path) -> None:
    edited, place, store = of_edited_source(learned), tmp_path / "place", LutStore([tmp_path / "luts"])
    repository = Repository(location(str(place)), pytest.fail)
    made_up = LutStore([tmp_path / "made-up"]).write(edited)
    assert verify_lut(made_up) == edited, "alone it follows from what it says"
    push(repository, made_up)
    store.write(source)
    key = source.entries[0].key
    with raises("source_differs") as caught:
        pull(repository, "xiaomi", store)
    assert f"{key} of its source pixel/" in str(caught.value)
    assert [ref.device for ref in store.list()] == ["pixel"], "nothing was written"
    done = bench("lut", "verify", made_up, "--luts", store.roots[0])
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)


def test_a_published_source_is_compared_too(learned, source, tmp_path: Path) -> None:
    blocks = tuple(
        PublishedBlock(key=entry.key, ms=entry.ms, **dict(entry.features)) for entry in source.entries
    )
    table = PublishedLut(
        device="pixel6",
        title="Pixel 6",
        space="toy",
        variant="tflite-cpu",
        source="somewhere",
        licence="MIT",
        file_sha256="0" * 64,
        imported="2026-01-01",
        blocks=blocks,
    ).signed()
    kept = Sources(tables=(table,)).stored_for([entry.key for entry in source.entries])
    meta = learned.meta.model_copy(update={"sources": kept})
    store = LutStore([tmp_path])
    (check,) = check_sources(replace(learned, meta=meta), store)
    assert check.here == ""
    write_published(table, tmp_path)
    (check,) = check_sources(replace(learned, meta=meta), store)
    assert check.here == "published/pixel6/toy/tflite-cpu"
    edited = kept[0].model_copy(update={"entry_ms": tuple(2 * (ms or 0.0) for ms in kept[0].entry_ms)})
    wrong = replace(learned, meta=meta.model_copy(update={"sources": (edited,)}))
    with raises("source_differs"):
        check_sources(wrong, store)


def test_largest_allowed_lut_is_readable(learned, tmp_path: Path) -> None:
    (kept,) = learned.meta.sources
    long = tuple(0.123456789012345 for _ in range(8_000))
    meta = learned.meta.model_copy(
        update={"sources": tuple(kept.model_copy(update={"entry_ms": long}) for _ in range(8))}
    )
    path = LutStore([tmp_path]).write(replace(learned, meta=meta))
    assert (path / "lut.json").stat().st_size > 1 << 20
    assert LutStore([tmp_path]).load(str(path)).meta.sources == meta.sources
