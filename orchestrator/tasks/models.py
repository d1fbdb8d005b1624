"""Models as files: exported where the cache does not have them, or lists of blocks for a simulated device."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.agent.runtime import read_pte
from orchestrator.export import Artifact, ExportFailure, ExportSpec, export_each, export_many
from orchestrator.export.artifacts.artifact import PACKED_SUFFIX, check_package, default_root, pack
from orchestrator.export.artifacts.spec import Variant
from orchestrator.simulate.device import write_model
from orchestrator.tasks.progress import Note, Progress, Step, silent
from orchestrator.wire.client import ModelFile

MAX_MODEL_BYTES = 1 << 30
"""Largest model that an agent takes."""


@dataclass(frozen=True)
class Lowered:
    """How a model was lowered: subgraphs handed to a delegate, and the operators outside with their counts.

    Both are None for Core ML, where the device decides.
    """

    delegates: int | None
    outside: Mapping[str, int] | None

    @classmethod
    def from_file(cls, path: Path) -> Lowered:
        """Return how a model file was lowered; only a `.pte` says."""
        try:
            summary = read_pte(path)
            return cls(sum(delegate.count for delegate in summary.delegates), summary.operators)
        except ValueError:
            return cls(None, None)


def export_all(
    specs: Mapping[str, ExportSpec], workers: int | None = None, progress: Progress = silent
) -> dict[str, Artifact]:
    """Export models by id; those in the cache cost nothing.

    Raises:
        ExportError: names the models that could not be exported.
    """

    def done(count: int, total: int, _: Artifact | ExportFailure) -> None:
        progress(Step("exporting", count, total))

    exported = export_many(list(specs.values()), workers=workers, progress=done)
    artifacts = dict(zip(specs, exported, strict=True))
    _report_plain(artifacts, progress)
    return artifacts


def export_possible(
    specs: Mapping[str, ExportSpec], workers: int | None = None, progress: Progress = silent
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Export models by id; return the artifacts, and why the others could not be exported.

    Raises:
        UsageError: an unknown model.
        StorageError: the cache can't be written.
    """
    started = time.monotonic()

    def done(count: int, total: int, result: Artifact | ExportFailure) -> None:
        if isinstance(result, ExportFailure) and result.unknown:
            raise UsageError(f"{result.spec.name}: {result.message}", code="unknown_model")
        progress(Step(f"exported {result.spec.name}", count, total))

    results = export_each(list(specs.values()), workers=workers, progress=done)
    by_name = dict(zip(specs, results, strict=True))
    artifacts = {name: result for name, result in by_name.items() if isinstance(result, Artifact)}
    failures = {name: result for name, result in by_name.items() if isinstance(result, ExportFailure)}
    _report_plain(artifacts, progress)
    progress(Note(f"{len(artifacts)} of {len(specs)} models exported in {time.monotonic() - started:.0f} s"))
    return artifacts, {name: failure.message for name, failure in failures.items()}


def _report_plain(artifacts: Mapping[str, Artifact], progress: Progress) -> None:
    for name, artifact in artifacts.items():
        if artifact.report.made == "plain":
            progress(
                Note(f"{name} is lowered without graph rewrites: with them, {artifact.report.plain_because}")
            )


def model_files(
    variant: Variant,
    specs: Mapping[str, ExportSpec],
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, ModelFile]:
    """Return models by id as files for a variant; nothing is exported for a simulated device.

    Raises:
        ExportError: names the models that could not be exported.
        UsageError: a network that a simulated device can't run.
    """
    if not variant.is_simulated:
        return files_of(export_all(specs, workers, progress))
    for name, spec in specs.items():
        if spec.module:
            raise _not_blocks(name)
    return {name: write_model(spec.blocks, default_root() / "simulated") for name, spec in specs.items()}


def exportable_files(
    variant: Variant,
    specs: Mapping[str, ExportSpec],
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, ModelFile], dict[str, Artifact], dict[str, str]]:
    """Return the files and artifacts of models that can be exported, and why the others can't, by name."""
    if variant.is_simulated:
        foreign = {
            name: "a simulated device only runs our blocks" for name, spec in specs.items() if spec.module
        }
        ours = {name: spec for name, spec in specs.items() if name not in foreign}
        return model_files(variant, ours), {}, foreign
    artifacts, reasons = export_possible(specs, workers, progress)
    return files_of(artifacts), artifacts, reasons


def check_any_left(variant: Variant, files: Mapping[str, ModelFile], reasons: Mapping[str, str]) -> None:
    """Raise BlocktimeError with the first reason if no model is left to measure; UsageError if simulated."""
    if files:
        return
    name, reason = next(iter(reasons.items()))
    if variant.is_simulated:
        raise _not_blocks(name)
    raise BlocktimeError(
        f"none of {len(reasons)} models can be exported; first: {name}: {reason}", code="nothing_exported"
    )


def _not_blocks(name: str) -> UsageError:
    return UsageError(
        f"a simulated device can't run {name}, only networks of our blocks; see bench arch list",
        code="not_blocks",
    )


def files_of(artifacts: Mapping[str, Artifact]) -> dict[str, ModelFile]:
    """Return the files of exported models."""
    return {name: ModelFile(artifact.path, artifact.sha256) for name, artifact in artifacts.items()}


@contextmanager
def user_model_files(paths: Sequence[Path]) -> Iterator[dict[str, ModelFile]]:
    """Open the user's model files by path; Core ML packages are packed, in a temporary folder.

    Raises:
        InvalidArtifactError: a file can't be read, or is too large for an agent.
    """
    with TemporaryDirectory(prefix="blocktime-") as folder:
        yield {str(path): _given_model(path, Path(folder) / str(i)) for i, path in enumerate(paths)}


def _given_model(given: Path, packed: Path) -> ModelFile:
    try:
        path = given
        if given.is_dir():
            check_package(given)
            path = packed.with_suffix(PACKED_SUFFIX)
            pack(given.resolve(), path)
        size = path.stat().st_size
        if not 0 < size <= MAX_MODEL_BYTES:
            raise InvalidArtifactError(
                f"{given} has {size} bytes; a model has 1 byte to 1 GiB", code="bad_model_size"
            )
        with path.open("rb") as file:
            return ModelFile(path, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InvalidArtifactError(
            f"{given}: cannot read the model ({error.strerror}); check the path", code="unreadable_model"
        ) from error
