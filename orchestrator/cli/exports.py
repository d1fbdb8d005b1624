"""Exports with a progress bar, for the commands that need models."""

from __future__ import annotations

import time
from collections.abc import Mapping

from luts.errors import UsageError
from orchestrator.cli.output import progress_bar, say
from orchestrator.export import Artifact, ExportFailure, ExportSpec, export_each, export_many
from orchestrator.export.cache import default_root
from orchestrator.measure.link import ModelFile
from orchestrator.simulate.document import write_model
from orchestrator.variant import Variant


def export_all(specs: Mapping[str, ExportSpec], workers: int | None = None) -> dict[str, Artifact]:
    """Export models by id; those in the cache cost nothing.

    Raises:
        ExportError: names the models that could not be exported.
    """
    with progress_bar() as progress:

        def done(count: int, total: int, _result: Artifact | ExportFailure) -> None:
            progress("exporting", count, total)

        artifacts = export_many(list(specs.values()), workers=workers, progress=done)
    return dict(zip(specs, artifacts, strict=True))


def export_what_can_be(
    specs: Mapping[str, ExportSpec], workers: int | None = None
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Models by id, and of those that could not be exported the reasons."""
    started = time.monotonic()
    with progress_bar() as progress:

        def done(count: int, total: int, result: Artifact | ExportFailure) -> None:
            progress(f"exported {result.spec.name}", count, total)

        results = dict(
            zip(specs, export_each(list(specs.values()), workers=workers, progress=done), strict=True)
        )
    artifacts = {name: result for name, result in results.items() if isinstance(result, Artifact)}
    say(f"{len(artifacts)} of {len(specs)} models exported in {time.monotonic() - started:.0f} s")
    return artifacts, {name: r.message for name, r in results.items() if isinstance(r, ExportFailure)}


def model_files(
    variant: Variant, specs: Mapping[str, ExportSpec], workers: int | None = None
) -> dict[str, ModelFile]:
    """Models by id as a device of this variant takes them; for a simulated one nothing is exported.

    Raises:
        ExportError: names the models that could not be exported.
        UsageError: a simulated device is given something else than blocks.
    """
    if not variant.is_simulated:
        artifacts = export_all(specs, workers)
        return {name: ModelFile(artifact.path, artifact.sha256) for name, artifact in artifacts.items()}
    for name, spec in specs.items():
        if spec.module:
            raise UsageError(
                f"a simulated device can't run {name}, it knows blocks alone; give architectures"
            )
    return {name: write_model(spec.blocks, default_root() / "simulated") for name, spec in specs.items()}


def files_that_can_be(
    variant: Variant, specs: Mapping[str, ExportSpec], workers: int | None = None
) -> tuple[dict[str, ModelFile], dict[str, str]]:
    """`model_files` of what can be exported, and of the rest the reasons."""
    if variant.is_simulated:
        return model_files(variant, specs), {}
    artifacts, reasons = export_what_can_be(specs, workers)
    return {name: ModelFile(artifact.path, artifact.sha256) for name, artifact in artifacts.items()}, reasons
