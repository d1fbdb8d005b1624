"""A LUT that was learned from others is recomputed without them, and compared with those that are at hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from luts.format.lut import Lut
from luts.format.schema import LutInputs
from luts.format.store import LutStore, digest_of
from luts.published import PublishedBlock, PublishedLut, write_published
from luts.share.location import location
from luts.share.repository import Repository, pull, push
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.tasks.sources import Sources
from tests.support.bench import bench
from tests.support.errors import raises
from tests.unit.tasks.test_sources import WORLD, made, slower


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
