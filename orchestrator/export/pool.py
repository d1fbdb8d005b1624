"""Export many models in parallel processes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from luts.format.errors import BlocktimeError, StorageError, UsageError
from luts.format.processes import WorkerPool
from orchestrator.agent.device import usable_cores
from orchestrator.export.artifacts.artifact import RELATIVE_TOLERANCE, Artifact, ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec
from search.spaces.plugins import loaded_plugins

WORKER_BYTES = 2 << 30
"""Memory reserved for a worker: lowering autovit-xxs needs 0.9 GB, most of it torch itself."""


@dataclass(frozen=True)
class ExportFailure:
    """A model that could not be exported.

    Attributes:
        spec: The model.
        message: The reason in one line.
        unknown: Whether no such model exists.
    """

    spec: ExportSpec
    message: str
    unknown: bool = False


ExportProgress = Callable[[int, int, Artifact | ExportFailure], None]
"""Called after each model with the number of finished models, the number of all, and the result."""


class ExportError(BlocktimeError):
    """Some models could not be exported; the others are in the cache."""

    def __init__(self, failures: tuple[ExportFailure, ...], total: int) -> None:
        """Name the first of the failures among `total` models."""
        first = failures[0]
        super().__init__(
            f"{len(failures)} of {total} models could not be exported, the others are cached; "
            f"first: {first.spec.name}: {first.message}",
            code="export_failed",
        )
        self.failures = failures


class UnknownModelError(ExportError, UsageError):
    """No model of that name exists."""


def export_many(
    specs: Sequence[ExportSpec],
    *,
    workers: int | None = None,
    cache: ArtifactCache | None = None,
    progress: ExportProgress | None = None,
    tolerance: float = RELATIVE_TOLERANCE,
) -> list[Artifact]:
    """Export all models or raise; arguments as for `export_each`.

    Raises:
        ExportError: Names the models that failed, after all others have finished.
        UnknownModelError: All failed models are unknown.
        StorageError: The cache is not writable.
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
    progress: ExportProgress | None = None,
    tolerance: float = RELATIVE_TOLERANCE,
) -> list[Artifact | ExportFailure]:
    """Return the exported model (or the failure) of every spec, in order; missing ones are exported by workers.

    Ctrl-C ends the workers at once; models exported until then stay cached.

    Args:
        specs: Models to export; equal specs are exported once.
        workers: Number of processes; default: one for each core, as far as memory allows.
        cache: Cache of exported models; default: the user's.
        progress: Called in this process.
        tolerance: Largest fp32 error relative to PyTorch's output scale; other precisions have their own limits.

    Raises:
        StorageError: The cache is not writable.
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
        # Models that may not exist come first, then the largest.
        missing.sort(key=lambda spec: (bool(spec.module), len(spec.blocks)), reverse=True)
        # One worker for each core, as far as memory allows.
        most = min(usable_cores(), psutil.virtual_memory().available // WORKER_BYTES)
        count = max(1, min(workers or most, len(missing)))
        with WorkerPool(_start_exporter, (cache.root, tolerance, loaded_plugins()), count, [_WORKER]) as pool:
            for spec, answer in pool.stream(missing, keep_going=True):
                if isinstance(answer, StorageError):
                    raise answer
                if isinstance(answer, BlocktimeError):
                    done(spec.cache_key, ExportFailure(spec, str(answer), isinstance(answer, UsageError)))
                else:
                    done(spec.cache_key, answer)
    return [results[spec.cache_key] for spec in specs]


_WORKER = "orchestrator.export.worker"
"""Module with everything that a worker needs; importing it takes seconds and needs torch."""


def _start_exporter(
    _: int, root: Path, tolerance: float, plugins: tuple[str, ...]
) -> Callable[[ExportSpec], Artifact]:
    return importlib.import_module(_WORKER).start(root, tolerance, plugins)  # type: ignore[no-any-return]
