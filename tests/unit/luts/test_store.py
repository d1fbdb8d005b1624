"""The store of LUTs: versions, names, pins, removal, and the LUTs that the package ships."""

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import luts
import luts.format.store
from luts.format.lut import Lut
from luts.format.schema import HeldoutError
from luts.format.store import LutRef, LutStore, lut_store, read_lut
from luts.verify import verify_lut
from orchestrator.cli.main import exit_code
from tests.support.errors import raises
from tests.support.lut_world import small_study


@pytest.fixture(scope="module")
def lut() -> Lut:
    return small_study().lut()


def of(lut: Lut, **fields: object) -> Lut:
    return replace(lut, meta=lut.meta.model_copy(update=fields))


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


def test_load_by_name_and_path(lut: Lut, tmp_path: Path) -> None:
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


def test_concurrent_writers(lut: Lut, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: LutStore([tmp_path]).write(lut), range(8)))
    assert sorted(folder.name for folder in folders) == sorted(f"v{number}" for number in range(1, 9))
    assert not list(tmp_path.glob("**/.writing-*"))


def test_ambiguous_and_unknown_names(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    store.write(lut)
    store.write(of(lut, variant="simulated-t2"))
    assert store.resolve("simulated-t2").variant == "simulated-t2"
    with raises("ambiguous_lut"):
        store.resolve("toy")
    with raises("unknown_lut") as caught:
        store.resolve("phone")
    assert exit_code(caught.value) == 2


def test_empty_store(tmp_path: Path) -> None:
    store = LutStore([tmp_path / "nothing"])
    assert store.list() == []
    with raises("unknown_lut"):
        store.load("host")


@pytest.mark.parametrize("step", ["fsync", "rename", "mkdir"])
def test_full_disk(lut: Lut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
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


def test_copy_is_named_by_its_content(lut: Lut, tmp_path: Path) -> None:
    folder = LutStore([tmp_path / "store"]).write(lut)
    copy = tmp_path / "copy"
    folder.rename(copy)
    ref = LutStore([]).resolve(copy)
    assert ref.parts[:3] == ("host", "toy", "simulated-t1")


def test_roots_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKTIME_LUTS", "/a")
    monkeypatch.setenv("XDG_DATA_HOME", "/b")
    assert lut_store().roots == (Path("/a"), Path(luts.format.store.__file__).parents[1] / "data")
    monkeypatch.delenv("BLOCKTIME_LUTS")
    assert lut_store(Path("/c")).roots[:2] == (Path("/c"), Path("/b/blocktime/luts"))
    monkeypatch.delenv("XDG_DATA_HOME")
    assert lut_store().roots[0] == Path.home() / ".local/share/blocktime/luts"


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


NAME = "host/toy/simulated-t1"


def with_mape(lut: Lut, mape: float | None) -> Lut:
    error = mape and HeldoutError(models=12, mape=mape, within_5=1.0, within_10=1.0, kendall_tau=None)
    return of(lut, heldout_error=error)


class RecordingStore(LutStore):
    """A store that remembers its warnings."""

    def __init__(self, *roots: Path) -> None:
        self.warnings: list[str] = []
        super().__init__(roots, self.warnings.append)


def test_name_means_the_newest_version(lut, tmp_path):
    store = RecordingStore(tmp_path)
    for mape in (0.008, 0.0081, None, 0.008):
        store.write(with_mape(lut, mape))
    assert store.resolve("host").version == store.resolve(NAME).version == 4
    for number in range(1, 5):
        assert store.resolve(f"{NAME}/v{number}").version == store.resolve(f"toy@v{number}").version == number
    assert store.warnings == []


@pytest.mark.parametrize(("mape", "worse"), [(0.0099, False), (0.0101, True), (0.001, False), (None, False)])
def test_worse_version_is_reported(lut, tmp_path, mape, worse):
    store = RecordingStore(tmp_path)
    store.write(with_mape(lut, 0.008))
    store.write(with_mape(lut, mape))
    assert store.resolve("toy").version == 2
    assert len(store.warnings) == worse
    assert all(f"bench lut pin {NAME}/v1" in warning for warning in store.warnings)


def test_name_means_the_pinned_version(lut, tmp_path):
    store = RecordingStore(tmp_path)
    store.write(lut)
    store.write(lut)
    store.pin(store.resolve(f"{NAME}/v1"))
    again = RecordingStore(tmp_path)
    assert (again.resolve("toy").version, again.warnings) == (1, [])
    again.write(lut)
    assert again.resolve("toy").version == 1
    assert "still means v1" in again.warnings[0]
    again.unpin(NAME)
    assert again.resolve("toy").version == 3


def test_packaged_version(lut, tmp_path, monkeypatch):
    LutStore([tmp_path / "package"]).write(lut)
    monkeypatch.setattr(luts.format.store, "PACKAGED", tmp_path / "package")
    store = LutStore([tmp_path / "user", tmp_path / "package"])
    store.write(lut)
    packaged = store.resolve(f"{NAME}/v1")
    store.pin(packaged)
    assert store.resolve("toy") == packaged
    with raises("packaged_lut"):
        store.remove(packaged)
    assert store.resolve("toy") == packaged


def test_removed_version(lut, tmp_path):
    store = LutStore([tmp_path])
    first, second = store.write(lut), store.write(lut)
    store.pin(store.resolve(first))
    store.remove(store.resolve(first))
    assert [ref.version for ref in store.list()] == [2]
    assert [path.name for path in first.iterdir()] == ["removed.txt"]
    assert store.resolve("toy").path == second
    store.remove(store.resolve(second))
    assert store.list() == []
    assert store.write(lut).name == "v3"


def test_lut_outside_the_store(lut, tmp_path):
    store = LutStore([tmp_path / "luts"])
    copy = tmp_path / "copy" / NAME / "v1"
    shutil.copytree(store.write(lut), copy)
    for change in (store.remove, store.pin):
        with raises("lut_outside_store"):
            change(store.resolve(copy))
    assert (copy / "lut.json").exists()


@pytest.mark.parametrize(("text", "code"), [("v7\n", "pinned_version_missing"), ("one\n", "invalid_pin")])
def test_damaged_pin(lut, tmp_path, text, code):
    store = RecordingStore(tmp_path)
    store.write(lut)
    (tmp_path / NAME / "pinned.txt").write_text(text)
    assert store.write(lut).name == "v2"
    assert len(store.warnings) == 1
    with raises(code):
        store.load("toy")
    assert store.load(f"{NAME}/v1") == lut
    store.pin(LutRef("host", "toy", "simulated-t1", 1, tmp_path / NAME / "v1"))
    assert store.resolve("toy").version == 1


SHIPPED = LutStore([Path(luts.__file__).parent / "data"]).list()


@pytest.mark.parametrize("ref", SHIPPED, ids=str)
def test_shipped_lut_verifies(ref) -> None:
    assert verify_lut(ref.path).meta.measured == "measured"


@pytest.mark.parametrize("ref", SHIPPED, ids=str)
def test_shipped_lut_names_its_machine(ref) -> None:
    device = read_lut(ref.path).meta.device
    assert ref.device == device.name == "linux-x86-64"
    assert "Linux" in device.os


def test_versions_sort_as_numbers(lut: Lut, tmp_path: Path) -> None:
    store = LutStore([tmp_path])
    for _ in range(11):
        store.write(lut)
    assert store.resolve("host/toy/simulated-t1").version == 11


def test_packaged_version_number_is_not_reused(lut: Lut, tmp_path: Path) -> None:
    LutStore([tmp_path / "package"]).write(lut)
    store = LutStore([tmp_path / "user", tmp_path / "package"])
    assert store.write(lut).name == "v2"
    assert [ref.version for ref in store.list()] == [1, 2]
