"""Worker processes: fresh ones, which leave Ctrl-C to the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

_NOTHING_TO_SAY = "ignore:resource_tracker:UserWarning"
"""Semaphores of workers that were killed are removed by Python's tracker, which tells of each kind of them."""


def worker_context(*preload: str) -> SpawnContext | ForkServerContext:
    """Fresh processes: spawned on macOS, whose system libraries forbid a fork; elsewhere forked from a server that
    has imported `preload` once."""
    if _NOTHING_TO_SAY not in sys.warnoptions:
        sys.warnoptions.append(_NOTHING_TO_SAY)
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def start_worker(process: BaseProcess) -> None:
    """Start it so that neither it nor the server it is forked from takes Ctrl-C: a terminal sends that to all, and
    whoever imports just then would tell of it in dozens of lines."""
    resource_tracker.ensure_running()  # which takes signals out of the mask again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent() -> None:
    """End this worker, whatever it is at, once the process that started it is gone, in whatever way that went."""
    threading.Thread(target=_wait_for_parent, name="parent-watch", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
