import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import luts.format.store
from luts.build import build_lut
from luts.format.lut import Lut
from luts.format.store import LutStore, default_roots
from orchestrator.cli.main import exit_code
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world


@pytest.fixture(scope="module")
def lut() -> Lut:
    generator = np.random.default_rng(0)
    study = make_study(generator, make_world(generator, slots=3), designs=4, segments=1, rounds=5)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


def of(lut: Lut, **fields: str) -> Lut:
    return Lut(lut.meta.model_copy(update=fields), lut.entries, lut.models, lut.samples)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_versions_count_up_and_never_change(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    first = store.write(lut)
    before = content(first)
    second = store.write(of(lut, created="2026-02-02"))
    assert first == tmp_path / "host" / "toy" / "simulated-t1" / "v1"
    assert second.name == "v2"
    assert content(first) == before
    assert all(not path.stat().st_mode & 0o222 for path in first.iterdir())
    assert [str(ref) for ref in store.list()] == [f"host/toy/simulated-t1/v{number}" for number in (1, 2)]


def test_versions_sort_as_numbers(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    for _ in range(11):
        store.write(lut)
    assert store.resolve("host/toy/simulated-t1").version == 11


def test_what_was_written_is_loaded(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    folder = store.write(lut)
    for ref in (
        folder,
        str(folder),
        folder / "lut.json",
        "host/toy/simulated-t1",
        "host/toy/simulated-t1/v1",
        "toy",
        "host/v1",
    ):
        assert store.load(ref) == lut


def test_writers_at_the_same_time_get_different_versions(lut: Lut, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: LutStore([tmp_path]).write(lut), range(8)))
    assert sorted(folder.name for folder in folders) == sorted(f"v{number}" for number in range(1, 9))
    assert not list(tmp_path.glob("**/.writing-*"))


def test_packaged_version_number_is_not_reused(lut: Lut, tmp_path: Path) -> None:
    LutStore([tmp_path / "package"]).write(lut)
    store = LutStore([tmp_path / "user", tmp_path / "package"])
    assert store.write(lut).name == "v2"
    assert [ref.version for ref in store.list()] == [1, 2]


def test_an_ambiguous_name_lists_the_candidates(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    store.write(lut)
    store.write(of(lut, variant="simulated-t2"))
    assert store.resolve("simulated-t2").variant == "simulated-t2"
    with raises("ambiguous_lut"):
        store.resolve("toy")
    with raises("unknown_lut") as caught:
        store.resolve("phone")
    assert exit_code(caught.value) == 2


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    store = LutStore([tmp_path / "nothing"])
    assert store.list() == []
    with raises("unknown_lut"):
        store.load("host")


@pytest.mark.parametrize("step", ["fsync", "rename", "mkdir"])
def test_a_full_disk_leaves_nothing_and_loses_nothing(
    lut: Lut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = LutStore([tmp_path])
    first = store.write(lut)
    before = content(first)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(Path, step, fail)
        with raises("disk_full"):
            store.write(lut)
    assert [path.name for path in first.parent.iterdir()] == ["v1"]
    assert content(first) == before
    assert store.write(lut).name == "v2"


def test_incomplete_folder_is_refused(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    folder = store.write(lut)
    (folder / "samples.parquet").unlink()
    with raises("unreadable_file"):
        store.load("host")


def test_a_copy_elsewhere_is_named_by_its_content(lut: Lut, tmp_path: Path) -> None:
    folder = LutStore([tmp_path / "store"]).write(lut)
    copy = tmp_path / "copy"
    folder.rename(copy)
    ref = LutStore([]).resolve(copy)
    assert ref.parts[:3] == ("host", "toy", "simulated-t1")


def test_roots_follow_the_environment() -> None:
    user, package = default_roots({"BLOCKTIME_LUTS": "/a", "XDG_DATA_HOME": "/b"})
    assert user == Path("/a")
    assert package == Path(luts.format.store.__file__).parents[1] / "data"
    assert default_roots({"XDG_DATA_HOME": "/b"})[0] == Path("/b/blocktime/luts")
    assert default_roots({})[0] == Path.home() / ".local/share/blocktime/luts"


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is not here"
)
def test_samples_are_decoded_in_one_thread(lut: Lut, tmp_path: Path) -> None:
    """Arrow's threads would give Python's bytes back while the interpreter ends, and abort the process."""
    path = LutStore([tmp_path]).write(lut) / "samples.parquet"
    counted = f"""
import os, pathlib, luts.format.lut
luts.format.lut.normalise_samples = lambda table: table
before = len(os.listdir("/proc/self/task"))
rows = luts.format.lut._decode_samples(pathlib.Path({str(path)!r}).read_bytes()).num_rows
print(rows > 0, len(os.listdir("/proc/self/task")) - before)
"""
    result = subprocess.run([sys.executable, "-c", counted], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "0"]
