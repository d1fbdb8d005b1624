"""Worker processes on this machine, and Ray for other machines."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError, UsageError

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


LONGEST_TEMPORARY = 30
"""Characters of a folder below which Ray's sockets can lie: they add 70, and the system allows 107."""

STORE_BYTES = 256 << 20
"""For what is handed over in a cluster of this machine: models one at a time."""


class Cluster:
    """An open connection to Ray. `ray` is its module; `owned` where the cluster was started here, which ends it."""

    def __init__(self, ray: Any, owned: bool, folder: Path | None = None):
        self.ray, self.owned, self._folder = ray, owned, folder

    def close(self) -> None:
        """Leave the cluster where it was there before, else end it."""
        if self.owned:
            self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_cluster(option: str, resources: Mapping[str, float] | None = None) -> Cluster:
    """Joins the cluster of $RAY_ADDRESS or of this process, else starts one on this machine.

    Nothing is uploaded: hosts of a cluster have this package installed. No dashboard, and no usage report.

    Args:
        option: Of the command line, which asks for it.
        resources: Of a cluster that is started here; others have their own.

    Raises:
        UsageError: Ray is not installed.
        BlocktimeError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"{option} needs Ray; install blocktime[cluster]") from error
    if ray.is_initialized():
        return Cluster(ray, owned=False)
    common = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    folder: Path | None = None
    try:
        with _own_signals():
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**common)
            else:
                folder = _short_folder()
                with _import_path():
                    ray.init(
                        "local",
                        resources=dict(resources or {}),
                        object_store_memory=STORE_BYTES,
                        _temp_dir=str(folder) if folder else None,
                        **common,
                    )
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise BlocktimeError(f"no Ray cluster ({first}); check RAY_ADDRESS, or unset it") from error
    # What Ray tells of lost workers goes to stdout whatever log_to_driver says; nothing public stops it.
    ray._private.worker._worker_logs_enabled = False
    return Cluster(ray, owned=True, folder=folder)


def _short_folder() -> Path | None:
    """Where sockets of a cluster may lie if the folder for temporary files has a long name; None: there."""
    if len(tempfile.gettempdir()) <= LONGEST_TEMPORARY or not Path("/tmp").is_dir():
        return None
    return Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))


@contextmanager
def _import_path() -> Iterator[None]:
    """Within, processes that are started find the modules that this one finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path or str(Path.cwd()) for path in sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself as it starts; afterwards it does again what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
