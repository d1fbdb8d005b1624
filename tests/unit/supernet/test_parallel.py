"""Processes and memory of a run: one training to a folder, and freed memory that is reused."""

import ctypes
import errno
import os
import platform
import subprocess
import sys

import pytest
from filelock import FileLock

from luts.format.files import LOCK_FILE, FolderBusyError, exclusive_folder
from search.spaces import get_space
from search.supernet.train import parallel as memory
from tests.support.errors import raises
from tests.support.training import TINY, supernet_trainer


def trainer(small, folder):
    return supernet_trainer(get_space("autovit-nano"), small, TINY, folder)


def test_a_second_training_is_refused_and_may_begin_once_the_first_has_ended(small, tmp_path):
    folder = tmp_path / "run"
    with exclusive_folder(folder):
        with raises("folder_busy"):
            trainer(small, folder).run()
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    assert trainer(small, folder).run().finished


def test_a_training_holds_its_folder_until_it_is_stopped(small, tmp_path):
    def stop(_progress):
        with pytest.raises(FolderBusyError), exclusive_folder(tmp_path):
            pass
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        trainer(small, tmp_path).run(stop)
    with exclusive_folder(tmp_path):
        pass


def test_a_file_system_without_locks_is_allowed(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with exclusive_folder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


SCRIPT = """
import resource, sys
import numpy as np
from search.supernet.train.parallel import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.empty(1 << 23).fill(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.empty(1 << 23).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"},
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_pages_of_a_freed_array_serve_the_next_one():
    assert _page_faults("kept") * 10 < _page_faults("as always")


def test_another_malloc_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
