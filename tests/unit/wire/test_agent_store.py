"""The agent's model store: bounds, eviction, and what a full disk leaves behind."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agent.store import ModelStore
from orchestrator.wire.errors import AgentError
from tests.support.errors import raises


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(store: ModelStore, data: bytes, in_use: tuple[str, ...] = ()) -> str:
    store.put(digest(data), len(data), iter([data[:1], data[1:]]), in_use)
    return digest(data)


def age(root: Path, sha256: str, seconds: int) -> None:
    then = time.time() - seconds
    os.utime(root / sha256, (then, then))


def test_stored_bytes_come_back(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.path(add(store, b"model")).read_bytes() == b"model"
    assert ModelStore(tmp_path).has(digest(b"model"))


def test_oldest_use_is_evicted_first(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, max_bytes=10)
    first, second = add(store, b"aaaa"), add(store, b"bbbb")
    age(tmp_path, first, 100)
    age(tmp_path, second, 50)
    store.path(first)
    third = add(store, b"cccc")
    assert [store.has(s) for s in (first, second, third)] == [True, False, True]


def test_loaded_models_are_never_evicted(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, max_bytes=10)
    loaded, idle = add(store, b"aaaaaa"), add(store, b"cc")
    with raises("storage_full"):
        add(store, b"bbbbbb", in_use=(loaded,))
    assert store.has(loaded)
    assert store.has(idle)


def test_too_large_for_the_store_at_all(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, max_bytes=10)
    with raises("storage_full"):
        add(store, b"x" * 11)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(number, "disk full")

    store = ModelStore(tmp_path)
    with raises("storage_full"):
        store.put(digest(b"half more"), 9, chunks())
    assert list(tmp_path.iterdir()) == []


def test_real_file_size_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel itself refuses the write, in a child process so that this one keeps its limits."""
    pid = os.fork()
    if pid == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        code = "stored"
        try:
            add(ModelStore(tmp_path), b"x" * 5000)
        except AgentError as error:
            code = error.code
        os._exit(0 if code == "storage_full" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(tmp_path.iterdir()) == []


def test_wrong_hash_leaves_nothing_behind(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with raises("hash_mismatch"):
        store.put(digest(b"a"), 1, iter([b"b"]))
    assert list(tmp_path.iterdir()) == []


def test_interrupted_transfer_leaves_nothing_behind(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        ModelStore(tmp_path).put(digest(b"half more"), 9, chunks())
    assert list(tmp_path.iterdir()) == []


def test_damaged_model_is_found_and_removed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    sha256 = add(store, b"model")
    (tmp_path / sha256).write_bytes(b"Model")
    with raises("hash_mismatch"):
        store.path(sha256)
    assert not store.has(sha256)


def test_stale_uploads_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".incoming-1-old").write_bytes(b"x")
    (tmp_path / ".incoming-2-new").write_bytes(b"x")
    os.utime(tmp_path / ".incoming-1-old", (1, 1))
    ModelStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".incoming-2-new"]
