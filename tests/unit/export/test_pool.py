"""What workers answer, without workers."""

import multiprocessing
from types import SimpleNamespace

import pytest

from luts.format.errors import StorageError
from orchestrator.export import ExportSpec, pool


def test_a_cache_that_cannot_be_written_ends_the_export_and_no_model_is_blamed(monkeypatch, tmp_path) -> None:
    killed = []

    def start(_self):
        ours, theirs = multiprocessing.Pipe()
        theirs.send(StorageError("no space left; free some"))
        return SimpleNamespace(kill=lambda: killed.append(True)), ours

    monkeypatch.setattr(pool._Pool, "_start", start)
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path))
    specs = [ExportSpec((f"conv(in=3,out={out},k=3,s=2)@32",)) for out in (8, 16)]
    with pytest.raises(StorageError, match="no space left; free some"):
        pool.export_each(specs, workers=2)
    assert killed == [True], "the other one"
