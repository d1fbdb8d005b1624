"""Freed memory is reused and not mapped again."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from search.supernet.train import parallel as memory

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
