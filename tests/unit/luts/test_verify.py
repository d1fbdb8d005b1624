"""Edits of a written LUT are detected, with old digests and with recomputed ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

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
from orchestrator.tasks.sources import LutSource, Sources
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.lut_world import small_study
from tests.unit.tasks.test_sources import WORLD, made, slower

FILES = (META_FILE, ENTRIES_FILE, MODELS_FILE, SAMPLES_FILE)


@pytest.fixture(scope="module")
def lut() -> Lut:
    return small_study(slots=4, designs=6, heldout=9, removals=1, segments=2, rounds=6).lut()


def written(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_a_written_lut_verifies(lut: Lut, tmp_path: Path) -> None:
    assert verify_lut(LutStore([tmp_path]).write(lut)) == lut


def test_rebuilt_lut_follows_from_its_samples(lut: Lut) -> None:
    first, *others = lut.entries
    edited = replace(lut, entries=(first.model_copy(update={"ms": 2 * first.ms}), *others))
    assert rebuild(edited) == lut
    renamed = rebuild(lut, "another")
    assert renamed.meta.device == lut.meta.device.model_copy(update={"name": "another"})
    assert renamed.entries == lut.entries


@pytest.mark.parametrize("name", FILES)
def test_edited_byte_is_detected(lut: Lut, name: str) -> None:
    files = encode(lut)
    content = files[name]
    for position in range(0, len(content), max(1, len(content) // 400)):
        edited = bytearray(content)
        edited[position] ^= 1
        with pytest.raises(InvalidArtifactError):
            decode({**files, name: bytes(edited)})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["cut", "longer", "empty", "gone"])
def test_cut_padded_or_missing_file_is_detected(lut: Lut, name: str, change: str, tmp_path: Path) -> None:
    files = encode(lut)
    changed = {"cut": files[name][: len(files[name]) // 2], "longer": files[name] + b"\n", "empty": b""}
    folder = written(tmp_path, {**files, **({name: changed[change]} if change in changed else {})})
    if change == "gone":
        (folder / name).unlink()
    with pytest.raises(InvalidArtifactError) as caught:
        verify_lut(folder)
    assert exit_code(caught.value) == 6


def test_oversized_file_is_refused(lut: Lut, tmp_path: Path) -> None:
    folder = written(tmp_path, encode(lut))
    with (folder / META_FILE).open("r+b") as stream:
        stream.truncate(MAX_FILE_BYTES[META_FILE] + 1)
    with raises("file_too_large"):
        verify_lut(folder)


def entry(number: int, **fields: object) -> Callable[[Lut], Lut]:
    """Return a change of fields of an entry; numbers are factors of what was there."""

    def change(lut: Lut) -> Lut:
        row = lut.entries[number]
        values = {
            name: getattr(row, name) * by if isinstance(by, float) else by for name, by in fields.items()
        }
        rows = (*lut.entries[:number], row.model_copy(update=values), *lut.entries[number + 1 :])
        return replace(lut, entries=rows)

    return change


def meta(**fields: float | object) -> Callable[[Lut], Lut]:
    """Return a change of fields of lut.json; numbers are factors."""

    def change(lut: Lut) -> Lut:
        values = {n: getattr(lut.meta, n) * v if isinstance(v, float) else v for n, v in fields.items()}
        return replace(lut, meta=lut.meta.model_copy(update=values))

    return change


def without_removal(lut: Lut) -> Lut:
    number = next(number for number, row in enumerate(lut.entries) if row.removal_ms is not None)
    return entry(number, removal_ms=0.0)(lut)


def slower_model(lut: Lut) -> Lut:
    model = lut.models[0].model_copy(update={"ms": lut.models[0].ms * 1.001})
    return replace(lut, models=(model, *lut.models[1:]))


def slower_samples(lut: Lut) -> Lut:
    ns = lut.samples.column("ns")
    slowed = pc.if_else(pc.equal(lut.samples.column("model"), lut.models[0].model_id), pc.add(ns, 1000), ns)
    column = lut.samples.column_names.index("ns")
    return replace(lut, samples=lut.samples.set_column(column, lut.samples.schema.field("ns"), slowed))


def better_held_out_error(lut: Lut) -> Lut:
    assert lut.meta.heldout_error is not None
    return meta(heldout_error=lut.meta.heldout_error.model_copy(update={"mape": 0.001}))(lut)


def another_prior(lut: Lut) -> Lut:
    return meta(prior=(lut.meta.prior[0].model_copy(update={"constant_ms": 9.0}), *lut.meta.prior[1:]))(lut)


EDITS: dict[str, Callable[[Lut], Lut]] = {
    "entry": entry(0, ms=1.0001),
    "interval": entry(0, ci_high=0.9),
    "removal": without_removal,
    "loads": entry(0, loads=1),
    "method": entry(0, method="prior"),
    "macs": lambda lut: entry(0, macs=2 * lut.entries[0].macs)(lut),
    "entry left out": lambda lut: replace(lut, entries=lut.entries[1:]),
    "order": lambda lut: replace(lut, entries=lut.entries[::-1]),
    "model": slower_model,
    "model left out": lambda lut: replace(lut, models=lut.models[:-1]),
    "sample": slower_samples,
    "reference": meta(reference_ms=1.01),
    "noise floor": meta(noise_floor=0.5),
    "held-out error": better_held_out_error,
    "conformal": meta(conformal=Conformal(half_width_90=0.0, half_width_95=None)),
    "base": meta(base_ms=1.01),
    "prior": another_prior,
}
"""Changes of a LUT whose files get new digests."""


@pytest.mark.parametrize("name", EDITS)
def test_edit_with_new_digests_is_detected(lut: Lut, name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, encode(EDITS[name](lut)))
    with pytest.raises(InvalidArtifactError):
        verify_lut(folder)


def test_differences_in_the_last_digits_pass(lut: Lut) -> None:
    entry = lut.entries[0]
    near = entry.model_copy(update={"ms": entry.ms * (1 + 1e-12)})
    verify_values(replace(lut, entries=(near, *lut.entries[1:])))


@pytest.fixture(scope="module")
def source() -> Lut:
    return made(name="pixel")


@pytest.fixture(scope="module")
def learned(source: Lut, tmp_path_factory: pytest.TempPathFactory) -> Lut:
    store = LutStore([tmp_path_factory.mktemp("source")])
    ref = store.resolve(str(store.write(source)))
    stored = Sources((LutSource.of_lut(ref, source, source.meta.space),)).stored_for(
        [entry.key for entry in source.entries]
    )
    return made(slower(WORLD, 3.0), 2, stored, designs=4, name="xiaomi")


def of_edited_source(learned: Lut) -> Lut:
    """Learned from entries that its source does not have; it verifies alone, since all follows from them."""
    (stored,) = learned.meta.sources
    first, *rest = stored.entry_ms
    assert first is not None
    other = stored.model_copy(update={"entry_ms": (1.01 * first, *rest)})
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


def test_entries_that_differ_from_the_source(learned, source, tmp_path) -> None:
    edited, place, store = of_edited_source(learned), tmp_path / "place", LutStore([tmp_path / "luts"])
    repository = Repository(location(str(place)), pytest.fail)
    edited_path = LutStore([tmp_path / "edited"]).write(edited)
    assert verify_lut(edited_path) == edited, "alone it follows from what it says"
    push(repository, edited_path)
    store.write(source)
    key = source.entries[0].key
    with raises("source_differs") as caught:
        pull(repository, "xiaomi", store)
    assert f"{key} of its source pixel/" in str(caught.value)
    assert [ref.device for ref in store.list()] == ["pixel"], "nothing was written"
    done = bench("lut", "verify", edited_path, "--luts", store.roots[0])
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)


def test_published_source_is_compared(learned, source, tmp_path: Path) -> None:
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
    stored = Sources((LutSource.of_table(table),)).stored_for([entry.key for entry in source.entries])
    meta = learned.meta.model_copy(update={"sources": stored})
    store = LutStore([tmp_path])
    (check,) = check_sources(replace(learned, meta=meta), store)
    assert check.here == ""
    write_published(table, tmp_path)
    (check,) = check_sources(replace(learned, meta=meta), store)
    assert check.here == "published/pixel6/toy/tflite-cpu"
    edited = stored[0].model_copy(update={"entry_ms": tuple(2 * (ms or 0.0) for ms in stored[0].entry_ms)})
    wrong = replace(learned, meta=meta.model_copy(update={"sources": (edited,)}))
    with raises("source_differs"):
        check_sources(wrong, store)


def test_largest_allowed_lut_is_readable(learned, tmp_path: Path) -> None:
    (stored,) = learned.meta.sources
    long = tuple(0.123456789012345 for _ in range(8_000))
    meta = learned.meta.model_copy(
        update={"sources": tuple(stored.model_copy(update={"entry_ms": long}) for _ in range(8))}
    )
    path = LutStore([tmp_path]).write(replace(learned, meta=meta))
    assert (path / "lut.json").stat().st_size > 1 << 20
    assert LutStore([tmp_path]).load(str(path)).meta.sources == meta.sources
