"""Exports in worker processes, with the exporting replaced."""

import pytest

from luts.format.errors import BlocktimeError, StorageError, UsageError
from orchestrator.export import ExportSpec, pool
from orchestrator.export.pool import ExportFailure, UnknownModelError
from tests.support.errors import raises

SPECS = [ExportSpec((f"conv(in=3,out={out},k=3,s=2)@32",)) for out in (8, 16)]


class BrokenExporter:
    """Workers of this process that answer with an error."""

    error: Exception

    def __init__(self, *_arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def stream(self, tasks, keep_going):
        assert keep_going
        yield from ((task, self.error) for task in tasks)


@pytest.fixture
def broken(monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "WorkerPool", BrokenExporter)
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path))
    return BrokenExporter


def test_unwritable_cache_ends_the_export(broken):
    broken.error = StorageError("no space left; free some")
    with pytest.raises(StorageError):
        pool.export_each(SPECS)


def test_failed_exports(broken):
    broken.error = UsageError("unknown block")
    assert pool.export_each(SPECS) == [ExportFailure(spec, "unknown block", unknown=True) for spec in SPECS]
    with pytest.raises(UnknownModelError):
        pool.export_many(SPECS)
    broken.error = BlocktimeError("out of memory")
    with raises("export_failed"):
        pool.export_many(SPECS)
