import errno
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from luts.format.errors import StorageError
from orchestrator.export.artifacts import artifact as cache_module
from orchestrator.export.artifacts.artifact import STALE_S, ArtifactCache, Report, default_root, deliver
from orchestrator.export.artifacts.spec import ExportSpec
from tests.support.bench import module_environment
from tests.support.errors import raises

SPEC = ExportSpec(("conv(in=3,out=8,k=3,s=2)@64",))
REPORT = Report(
    delegates=1,
    operators=(("aten.mean.dim", 2),),
    max_abs_error=1e-6,
    max_relative_error=1e-7,
    tolerance=1e-4,
    export_s=0.5,
)


def write(path: Path) -> Report:
    path.write_bytes(b"program")
    return REPORT


def test_put_then_get(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    assert cache.get(SPEC) is None
    stored = cache.put(SPEC, write)
    assert stored == cache.get(SPEC)
    assert stored.path.read_bytes() == b"program"
    assert stored.payload_bytes == 7
    assert stored.report == REPORT
    assert not list((tmp_path / "pending").iterdir())


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-4), ("fp16", 1e-2), ("int8", 0.5)])
def test_tolerance_by_precision(tmp_path: Path, precision: str, allowed: float) -> None:
    spec = ExportSpec(SPEC.blocks, runtime="coreml", precision=precision)
    for error, fits in ((allowed * 0.99, True), (allowed * 1.01, False)):
        report = REPORT.model_copy(update={"max_relative_error": error})
        stored = ArtifactCache(tmp_path / str(error)).put(spec, lambda path, r=report: (write(path), r)[1])
        assert stored.within(1e-4) is fits
        assert stored.suffix == ".mlpackage"


@pytest.mark.parametrize("damage", ["truncate", "flip", "record", "no model", "foreign key"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str) -> None:
    cache = ArtifactCache(tmp_path)
    stored = cache.put(SPEC, write)
    record = stored.path.parent / "record.json"
    match damage:
        case "truncate":
            stored.path.write_bytes(b"prog")
        case "flip":
            stored.path.write_bytes(b"Program")
        case "record":
            record.write_text("[1, 2")
        case "no model":
            stored.path.unlink()
        case "foreign key":
            record.write_text(record.read_text().replace(SPEC.cache_key, "0" * 64))
    assert cache.get(SPEC) is None
    assert cache.put(SPEC, write).path.read_bytes() == b"program"
    assert cache.get(SPEC) is not None


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArtifactCache(tmp_path)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "_sync", full)
    with pytest.raises(StorageError, match="BLOCKTIME_CACHE.*No space left.*free some space"):
        cache.put(SPEC, write)
    assert cache.get(SPEC) is None
    assert not list((tmp_path / "pending").iterdir())


def test_an_unwritable_root_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="BLOCKTIME_CACHE"):
        ArtifactCache(tmp_path / "file").put(SPEC, write)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(path: Path) -> Report:
        path.write_bytes(b"pro")
        raise KeyboardInterrupt

    cache = ArtifactCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.put(SPEC, interrupted)
    assert cache.get(SPEC) is None
    assert not list((tmp_path / "pending").iterdir())


def test_writers_at_the_same_time_agree(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    results = []

    def put() -> None:
        def slow(path: Path) -> Report:
            barrier.wait()
            return write(path)

        results.append(ArtifactCache(tmp_path).put(SPEC, slow))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len({artifact.sha256 for artifact in results}) == 1


WRITER = """
import sys
from pathlib import Path
from orchestrator.export.artifacts.artifact import ArtifactCache
from tests.unit.export.test_artifact_cache import SPEC, write

def slow(path):
    print("writing", flush=True)
    sys.stdin.readline()
    return write(path)

print(ArtifactCache(Path(sys.argv[1])).put(SPEC, slow).sha256)
"""


def test_two_processes_agree_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            env=module_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [writer.stdout.readline() for writer in writers] == 3 * ["writing\n"]
    writers[0].kill()
    said = [writer.communicate("\n")[0].strip() for writer in writers]
    artifact = ArtifactCache(tmp_path).get(SPEC)
    assert said == ["", artifact.sha256, artifact.sha256]


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    old, young = tmp_path / "pending" / "old", tmp_path / "pending" / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    past = time.time() - 2 * STALE_S
    os.utime(old, (past, past))
    ArtifactCache(tmp_path).put(SPEC, write)
    assert not old.exists()
    assert young.exists()


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BLOCKTIME_CACHE", raising=False)
    assert default_root() == tmp_path / "blocktime"
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "own"))
    assert default_root() == tmp_path / "own"


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_packages_in_other_compression_than_ours_are_refused_before_they_are_unpacked(method, tmp_path):
    """The header of an LZMA entry may ask for 4 GiB of memory."""
    packed = tmp_path / "net.mlpackage.zip"
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("net.mlpackage/Manifest.json", "{}")
    with raises("invalid_file") as caught:
        deliver(packed, tmp_path / "net.mlpackage")
    assert "neither stored nor deflated" in str(caught.value)
    assert not (tmp_path / "net.mlpackage").exists()


@pytest.mark.parametrize(("place", "damage"), [(20, (2**31 - 1).to_bytes(4, "little")), (46, b"\xff")])
def test_entries_that_say_they_are_too_long_or_have_no_name_are_refused(place, damage, tmp_path):
    """Bytes of the entry in the central directory: its compressed size, and its name in UTF-8."""
    packed = tmp_path / "net.mlpackage.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("net.mlpackage/\u00e4.json", "{}")
    content = bytearray(packed.read_bytes())
    start = content.index(b"PK\x01\x02") + place
    content[start : start + len(damage)] = damage
    packed.write_bytes(content)
    with raises("invalid_file"):
        deliver(packed, tmp_path / "net.mlpackage")
