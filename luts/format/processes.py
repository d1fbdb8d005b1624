"""Worker processes on this machine, and Ray for other machines."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from luts.format.errors import (
    OUT_OF_MEMORY,
    BlocktimeError,
    UsageError,
    first_line,
    install_extra,
    is_out_of_memory,
)
from luts.format.files import Closeable

_QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
"""Python's resource tracker removes the semaphores of killed workers, and would warn about each kind of them."""


def worker_context(*preload: str) -> SpawnContext | ForkServerContext:
    """Return the context for fresh processes.

    macOS spawns them, because its system libraries forbid a fork; elsewhere they are forked from a server that has
    imported the modules `preload` once.
    """
    if _QUIET_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_QUIET_TRACKER)
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def start_worker(process: BaseProcess) -> None:
    """Start a process that ignores Ctrl-C, as does the server that it is forked from.

    A terminal sends Ctrl-C to all processes; a worker interrupted during an import would print a long traceback.
    """
    resource_tracker.ensure_running()  # which clears the signal mask
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent() -> None:
    """End this process as soon as the process that started it has ended for any reason."""
    threading.Thread(target=_wait_for_parent, name="parent-watch", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


Task = TypeVar("Task")
Answer = TypeVar("Answer")

STOP_S = 5.0
"""Time an idle worker has to end by itself; an idle worker ends at once, so a longer wait means that it hangs."""


class WorkerCrashError(BlocktimeError):
    """A worker process ended before it answered.

    Attributes:
        exit_code: Its exit code, -N after signal N.
        cause: The exit code in words, such as "signal 9; out of memory?".
    """

    def __init__(self, exit_code: int | None) -> None:
        """Make the message from the exit code."""
        cause = f"exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            cause = f"signal {-exit_code}" + ("; out of memory?" if exit_code == -signal.SIGKILL else "")
        super().__init__(
            f"a worker process ended unexpectedly ({cause}); run the same command to resume, "
            "with fewer --workers if memory is short",
            code="worker_crashed",
        )
        self.exit_code, self.cause = exit_code, cause


class WorkerPool(Closeable, Generic[Task, Answer]):
    """Processes of this machine that each answer one task at a time.

    Workers start with the first task, ignore Ctrl-C, and are replaced if they crash. Use the pool in a `with`
    block or call `close`.
    """

    def __init__(
        self,
        start: Callable[..., Callable[[Task], Answer]],
        arguments: tuple[Any, ...],
        workers: int,
        preload: Sequence[str] = (),
    ) -> None:
        """Prepare a pool; no process starts yet.

        Args:
            start: Top-level function that a new worker calls once with its number (from 0) and `arguments`. It
                returns the function that answers a task. If it raises, every task of that worker gets the error.
            arguments: Picklable arguments for `start`.
            workers: Largest number of processes.
            preload: Modules that the fork server imports once for all workers; default: the module of `start`.
        """
        self._start, self._arguments, self._workers = start, arguments, workers
        self._context = worker_context(*(preload or (start.__module__,)))
        self._processes: dict[Connection, tuple[int, BaseProcess]] = {}
        self._idle: list[Connection] = []

    def stream(
        self, tasks: Iterable[Task], keep_going: bool = False
    ) -> Iterator[tuple[Task, Answer | BlocktimeError]]:
        """Yield every task with its answer, as answers arrive; tasks are taken when a worker is free.

        With `keep_going` errors are yielded as answers. Otherwise no further task is assigned after the first
        error; the tasks already assigned are finished and yielded, then the error is raised: what a worker
        raised, or `WorkerCrashError`.
        """
        for _, task, answer in self._run(tasks, keep_going):
            yield task, answer

    def map(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Yield the answers in the order of the tasks; raises the first error (see `stream`)."""
        answers: dict[int, Any] = {}
        following = 0
        for number, _, answer in self._run(tasks, keep_going=False):
            answers[number] = answer
            while following in answers:
                yield answers.pop(following)
                following += 1

    def _run(
        self, tasks: Iterable[Task], keep_going: bool
    ) -> Iterator[tuple[int, Task, Answer | BlocktimeError]]:
        """Yield number, task and answer of every task, as answers arrive."""
        waiting = enumerate(tasks)
        busy: dict[Connection, tuple[int, Task]] = {}
        failure: BlocktimeError | None = None
        try:
            while True:
                while failure is None and (self._idle or len(self._processes) < self._workers):
                    try:
                        number, task = next(waiting)
                    except StopIteration:
                        break
                    connection = self._idle.pop() if self._idle else self._add_worker()
                    busy[connection] = number, task
                    with contextlib.suppress(BrokenPipeError):  # noticed when its answer is received
                        connection.send(task)
                if not busy:
                    break
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    number, task = busy.pop(ready)
                    answer = self._receive(ready)
                    if isinstance(answer, BlocktimeError) and not keep_going:
                        failure = failure or answer
                    else:
                        yield number, task, answer
        finally:
            for connection in busy:
                self._remove_worker(connection, kill=True)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End all workers."""
        for connection in self._processes:
            connection.close()
        for connection in list(self._processes):
            self._remove_worker(connection)
        self._idle.clear()

    def _add_worker(self) -> Connection:
        number = min(set(range(self._workers)) - {number for number, _ in self._processes.values()})
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_answer_tasks, args=(theirs, self._start, number, self._arguments), daemon=True
        )
        start_worker(process)
        theirs.close()
        self._processes[ours] = number, process
        return ours

    def _receive(self, connection: Connection) -> Answer | BlocktimeError:
        try:
            answer: Answer | BlocktimeError = connection.recv()
        except (EOFError, ConnectionResetError):
            return WorkerCrashError(self._remove_worker(connection))
        self._idle.append(connection)
        return answer

    def _remove_worker(self, connection: Connection, kill: bool = False) -> int | None:
        """End a worker and return its exit code."""
        _, process = self._processes.pop(connection)
        connection.close()
        if kill:
            process.kill()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


def _answer_tasks(
    connection: Connection,
    start: Callable[..., Callable[[Any], Any]],
    number: int,
    arguments: tuple[Any, ...],
) -> None:
    """Answer tasks until the parent closes the connection, which also handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer, failure = None, None
    try:
        answer = start(number, *arguments)
    except Exception as error:
        failure = as_blocktime_error(error)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            if answer is None:
                connection.send(failure)
                continue
            try:
                reply = answer(task)
            except Exception as error:
                reply = as_blocktime_error(error)
            connection.send(reply)


def as_blocktime_error(error: Exception) -> BlocktimeError:
    """Return the error itself if it is expected, else a one-line error that names its type."""
    if isinstance(error, BlocktimeError):
        return error
    if is_out_of_memory(error):
        return BlocktimeError(OUT_OF_MEMORY, code="out_of_memory")
    return BlocktimeError(f"unexpected {first_line(error)}; please report it", code="unexpected_error")


LONGEST_TEMPORARY = 30
"""Longest path, in characters, of a folder for Ray's sockets: their names add 70, the system allows 107."""

STORE_BYTES = 256 << 20
"""Size of Ray's object store on this machine; it holds one model at a time."""


@dataclass(frozen=True)
class Cluster:
    """An open connection to Ray (its module).

    `owned`: this process started the cluster, and ends it; `folder` is removed then.
    """

    ray: Any
    owned: bool
    folder: Path | None = None

    def close(self) -> None:
        """Disconnect; end the cluster if this process started it."""
        if self.owned:
            self.ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_cluster(option: str, resources: Mapping[str, float] | None = None) -> Cluster:
    """Join the cluster of $RAY_ADDRESS or of this process, else start one on this machine.

    Nothing is uploaded: hosts of a cluster have this package installed. No dashboard, and no usage report.

    Args:
        option: Command-line option that needs Ray, for messages.
        resources: Resources of a cluster that is started here; others declare their own.

    Raises:
        UsageError: Ray is not installed.
        BlocktimeError: The cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"{option} needs Ray; {install_extra('cluster')}", code="missing_package") from error
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
                # processes that are started inside find the modules that this process finds
                paths = dict.fromkeys(path or str(Path.cwd()) for path in sys.path)
                with environment("PYTHONPATH", os.pathsep.join(paths)):
                    ray.init(
                        "local",
                        resources=dict(resources or {}),
                        object_store_memory=STORE_BYTES,
                        _temp_dir=str(folder) if folder else None,
                        **common,
                    )
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise BlocktimeError(
            f"cannot connect to a Ray cluster ({first}); check RAY_ADDRESS, or unset it", code="no_cluster"
        ) from error
    # Ray prints about lost workers to stdout even without log_to_driver; no public setting stops it.
    ray._private.worker._worker_logs_enabled = False
    return Cluster(ray, owned=True, folder=folder)


def _short_folder() -> Path | None:
    """Return a folder for Ray's sockets if the folder for temporary files has too long a name, else None."""
    if len(tempfile.gettempdir()) <= LONGEST_TEMPORARY or not Path("/tmp").is_dir():
        return None
    return Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable while the context lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
