"""What caches hold, and what is removed of them."""

import json
import os
import time

import pytest

from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.tasks.doctor import CacheOptions, cache
from tests.support.bench import bench
from tests.support.errors import raises
from tests.unit.export.test_artifact_cache import SPEC, write

HOUR = 3600.0


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three entries of 100, 20 and 3 bytes, used five, four and three hours ago."""
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "agents"))
    files = {
        "cache/models/abc/model.pte": 90,
        "cache/models/abc/record.json": 10,
        "agents/blocktime/agent-store-host/0123": 20,
        "cache/fragments/def.json": 3,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    now = time.time()
    for hours, name in (
        (5, "cache/models/abc"),
        (4, "agents/blocktime/agent-store-host/0123"),
        (3, "cache/fragments/def.json"),
    ):
        os.utime(tmp_path / name, (now, now - hours * HOUR))
    return tmp_path


def sizes() -> dict[str, tuple[int, int]]:
    return {row["kind"]: (row["entries"], row["payload_bytes"]) for row in cache(CacheOptions()).rows}


def trim(left: int) -> list[str]:
    notes: list[str] = []
    cache(CacheOptions(keep=left), lambda event: notes.append(str(event)))
    return notes


def test_parts_are_counted_where_they_lie(root) -> None:
    assert sizes() == {
        "exported models": (1, 100),
        "lowered parts": (1, 3),
        "unfinished": (0, 0),
        "models of this machine's agents": (1, 20),
    }


@pytest.mark.parametrize(("left", "removed"), [(123, 0), (122, 100), (23, 100), (22, 120), (0, 123)])
def test_least_recently_used_entries_go_first(root, left, removed) -> None:
    assert len(trim(left)) == 1
    assert sum(payload_bytes for _, payload_bytes in sizes().values()) == 123 - removed


def test_what_is_in_use_stays(root) -> None:
    (root / "cache/fragments/def.json").touch()
    assert trim(0) == ["2 removed, 0.0 MB", "1 more were used within the last hour and stay"]
    assert sizes()["lowered parts"] == (1, 3)
    assert (root / "cache/fragments/def.json").exists()


def test_reading_a_model_is_a_use(root) -> None:
    artifacts = ArtifactCache()
    stored = artifacts.put(SPEC, write)
    os.utime(stored.path.parent, (0, 0))
    assert artifacts.get(SPEC) is not None
    trim(0)
    assert artifacts.get(SPEC) is not None
    os.utime(stored.path.parent, (0, 0))
    trim(0)
    assert artifacts.get(SPEC) is None


def test_what_can_not_be_removed_is_reported(root, monkeypatch) -> None:
    def refused(*_) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.rename", refused)
    with raises("cannot_remove"):
        trim(0)


def test_the_command_shows_and_trims(root) -> None:
    shown = bench("doctor", "cache").stdout
    assert "0.0 MB in caches" in shown
    assert str(root / "cache/models") in shown
    trimmed = bench("doctor", "cache", "--keep", "0", "--json")
    assert trimmed.stderr.splitlines() == ["3 removed, 0.0 MB"]
    assert [row["entries"] for row in json.loads(trimmed.stdout)] == [0, 0, 0, 0]
    refused = bench("doctor", "cache", "--keep", "much")
    assert (refused.returncode, "--keep 'much': expected a size such as 10KB" in refused.stderr) == (2, True)
