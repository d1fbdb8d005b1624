"""Exports with a progress bar, for the commands that need models."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.cli.output import progress_bar
from orchestrator.export import Artifact, ExportFailure, ExportSpec, export_many


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
