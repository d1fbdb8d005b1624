"""Latencies of compared models, kept so that the same comparison asks the device once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import InvalidArtifactError
from luts.format.files import read_bytes, write_json
from orchestrator.export import ExportSpec
from orchestrator.tasks.candidates import Candidate
from orchestrator.tasks.measure import measure_specs
from orchestrator.tasks.options import MeasureOptions
from orchestrator.tasks.progress import Note, Progress
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile

MAX_BYTES = 64 << 20
"""Thousands of models."""


@dataclass(frozen=True)
class Timing:
    """On what models are measured, and how, as of `measure_networks`."""

    target: Target
    budget_s: float = 120.0
    seed: int = 0
    self_test: bool = True


@dataclass(frozen=True)
class Latencies:
    """Cells of each row by name, on what they were measured, and models that could not be."""

    setup: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, str]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Latencies:
        """Of what `MeasuredNetworks` has for JSON."""
        setup = {name: document[name] for name in ("device", "variant", "noise_floor", "reference")}
        rows = {
            row["model"]: {name: value for name, value in row.items() if name not in _OF_PAPER}
            for row in document["models"]
        }
        return cls(setup, rows, document["failures"])


_OF_PAPER = {"model", "sha256", "params", "conv_linear_macs", "all_macs"}


def latencies_of(
    candidates: Mapping[str, Candidate],
    specs: Mapping[str, ExportSpec],
    files: Sequence[Path],
    models: Mapping[str, ModelFile],
    timing: Timing,
    folder: Path | None,
    workers: int | None,
    progress: Progress,
) -> Latencies:
    """Measure models side by side, or read what the very same ones took when they were measured alike.

    Args:
        candidates: Networks by name, and
        specs: how each is exported.
        files: Models that are exported already.
        models: The files of both, by name.
        timing: On what, and how.
        folder: Where measurements are kept; None for nowhere.
        workers: Exporting processes.
        progress: Told of every batch.

    Raises:
        InvalidArtifactError: what was kept is damaged.
        BlocktimeError: as `measure_networks`.
    """
    target = timing.target
    digests = {name: file.sha256 for name, file in models.items()}
    said = [target.device, target.variant.name, timing.seed, timing.self_test, digests]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    kept = folder / "latency" / f"{digest[:24]}.json" if folder else None
    if kept and kept.exists():
        progress(Note(f"measured before, in {kept}"))
        try:
            return Latencies.of(json.loads(read_bytes(kept, MAX_BYTES, "remove it")))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArtifactError(f"{kept}: not a measurement ({error}); remove it") from error
    able = {name: candidate for name, candidate in candidates.items() if name in models}
    measured = measure_specs(
        {name: candidate.network for name, candidate in able.items()},
        {name: specs[name] for name in able},
        target,
        MeasureOptions(
            budget_s=timing.budget_s, seed=timing.seed, self_test=timing.self_test, workers=workers
        ),
        files=files,
        memory=True,
        progress=progress,
    ).to_dict()
    if kept:
        write_json(kept, measured)
    return Latencies.of(measured)
