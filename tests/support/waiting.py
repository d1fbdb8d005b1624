"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from subprocess import Popen
from typing import TypeVar

import psutil

_STEP_S = 0.01

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = 300.0, process: Popen[str] | None = None) -> T:
    """What `condition` gives once that is true; fails after the timeout, or where `process` ends without it."""
    give_up_s = time.monotonic() + timeout_s
    while not (result := condition()):
        assert process is None or process.poll() is None, f"it ended before: {process.communicate()}"
        assert time.monotonic() < give_up_s, f"it did not come in {timeout_s:g} s"
        time.sleep(_STEP_S)
    return result


def has_ended(pid: int) -> bool:
    """Nothing runs under this number, or a zombie that nobody waited for yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
