"""Export many models in parallel processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from luts.format.errors import BlocktimeError, StorageError, UsageError
from luts.format.processes import start_worker, worker_context
from orchestrator.agent.device import usable_cores
from orchestrator.export.artifacts.artifact import RELATIVE_TOLERANCE, Artifact, ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec
from search.spaces.plugins import loaded_plugins

WORKER_BYTES = 2 << 30
"""Memory to allow a worker: lowering autovit-xxs held 0.9 GB, most of it torch itself."""


@dataclass(frozen=True)
class ExportFailure:
    """A model that could not be exported, and why in one line; `unknown` where there is no such model at all."""

    spec: ExportSpec
    message: str
    unknown: bool = False


Progress = Callable[[int, int, Artifact | ExportFailure], None]
"""Called after each model with the number done, the number of all, and its result."""


class ExportError(BlocktimeError):
    """Some models could not be exported; the others are in the cache."""

    def __init__(self, failures: tuple[ExportFailure, ...], total: int):
        first = failures[0]
        super().__init__(
            f"{len(failures)} of {total} models not exported, the others are cached; "
            f"first: {first.spec.name}: {first.message}"
        )
        self.failures = failures


class UnknownModelError(ExportError, UsageError):
    """A model that there is not."""


def export_many(
    specs: Sequence[ExportSpec],
    *,
    workers: int | None = None,
    cache: ArtifactCache | None = None,
    progress: Progress | None = None,
    tolerance: float = RELATIVE_TOLERANCE,
) -> list[Artifact]:
    """`export_each` where every model is needed.

    Raises:
        ExportError: names the models that failed, after all others are done.
    """
    results = export_each(specs, workers=workers, cache=cache, progress=progress, tolerance=tolerance)
    failures = {r.spec.cache_key: r for r in results if isinstance(r, ExportFailure)}
    if failures:
        kind = UnknownModelError if all(failure.unknown for failure in failures.values()) else ExportError
        raise kind(tuple(failures.values()), len({spec.cache_key for spec in specs}))
    return [result for result in results if isinstance(result, Artifact)]


def export_each(
    specs: Sequence[ExportSpec],
    *,
    workers: int | None = None,
    cache: ArtifactCache | None = None,
    progress: Progress | None = None,
    tolerance: float = RELATIVE_TOLERANCE,
) -> list[Artifact | ExportFailure]:
    """The models of all specs in their order, the missing ones exported by worker processes.

    Ctrl-C ends the workers at once; what was exported until then stays cached.

    Args:
        specs: What to export; equal ones are exported once.
        workers: Processes; by default one a core, as far as memory allows.
        cache: Where models are kept; the user's cache by default.
        progress: Called in this process.
        tolerance: Largest error of fp32 relative to PyTorch's output scale; other precisions may have more.

    Raises:
        StorageError: the cache can't be written, which is no model's fault.
    """
    cache = cache or ArtifactCache()
    unique = {spec.cache_key: spec for spec in specs}
    results: dict[str, Artifact | ExportFailure] = {}

    def done(key: str, result: Artifact | ExportFailure) -> None:
        results[key] = result
        if progress is not None:
            progress(len(results), len(unique), result)

    missing = []
    for key, spec in unique.items():
        cached = cache.get(spec)
        if cached is not None and cached.within(tolerance):
            done(key, cached)
        else:
            missing.append(spec)
    if missing:
        # The last one goes first: those that may not exist, then the largest.
        missing.sort(key=lambda spec: (bool(spec.module), len(spec.blocks)))
        count = max(1, min(workers or _default_workers(), len(missing)))
        _Pool(cache.root, tolerance).run(missing, count, done)
    return [results[spec.cache_key] for spec in specs]


def _default_workers() -> int:
    return max(1, min(usable_cores(), psutil.virtual_memory().available // WORKER_BYTES))


class _Pool:
    """Workers that each export one model at a time; a worker that dies fails its model and is replaced."""

    def __init__(self, root: Path, tolerance: float):
        self._root, self._tolerance = root, tolerance
        self._context = worker_context("orchestrator.export.worker")
        self._busy: dict[Connection, tuple[BaseProcess, ExportSpec]] = {}

    def run(
        self, specs: list[ExportSpec], workers: int, done: Callable[[str, Artifact | ExportFailure], None]
    ) -> None:
        """Export the specs, the last one first."""
        waiting = list(specs)
        try:
            for _ in range(workers):
                self._assign(*self._start(), waiting.pop())
            while self._busy:
                for ready in wait(list(self._busy)):
                    assert isinstance(ready, Connection)
                    process, spec = self._busy.pop(ready)
                    try:
                        answer = ready.recv()
                        alive = True
                    except (EOFError, ConnectionResetError):
                        process.join()
                        answer = f"the exporting process died ({_how(process.exitcode)})"
                        alive = False
                        ready.close()
                    if isinstance(answer, StorageError):
                        raise answer
                    if isinstance(answer, str | UsageError):
                        answer = ExportFailure(spec, str(answer), isinstance(answer, UsageError))
                    done(spec.cache_key, answer)
                    if waiting:
                        self._assign(*((process, ready) if alive else self._start()), waiting.pop())
                    elif alive:
                        ready.close()
                        process.join()
        finally:
            for process, _ in self._busy.values():
                process.kill()

    def _start(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._root, self._tolerance, loaded_plugins()), daemon=True
        )
        start_worker(process)
        theirs.close()
        return process, ours

    def _assign(self, process: BaseProcess, connection: Connection, spec: ExportSpec) -> None:
        self._busy[connection] = (process, spec)
        with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed where its answer is awaited
            connection.send(spec)


def _serve(connection: Connection, root: Path, tolerance: float, plugins: tuple[str, ...]) -> None:
    from orchestrator.export.worker import serve

    serve(connection, root, tolerance, plugins)


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        reason = "; out of memory?" if exit_code == -9 else ""
        return f"signal {-exit_code}{reason}"
    return f"exit code {exit_code}"
