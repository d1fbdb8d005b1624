"""Attribution by removal, on any device: the network measured next to itself without one kind after another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from luts.format.errors import InvalidArtifactError
from orchestrator.breakdown.attribution import WHOLE, Attribution, by_removal
from orchestrator.devices.common.device import Device
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.kinds import KINDS, TITLES, Kind
from orchestrator.export.lower.removal import Census, census
from orchestrator.export.lower.source import build_module
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet, ProgressCallback
from orchestrator.measure.session import measure
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile


def count_parts(spec: ExportSpec) -> dict[Kind, Census]:
    """Return the parts of a network by kind."""
    return census(*build_module(spec), spec.backend)


def removal_specs(spec: ExportSpec, parts: Mapping[Kind, Census]) -> dict[str, ExportSpec]:
    """Return the network, and it without each kind that can be removed, by journal id."""
    return {WHOLE: spec} | {
        kind: replace(spec, without=kind) for kind in KINDS if kind in parts and parts[kind].removable
    }


def find_removal_run(
    device: Device, variant: Variant, files: Mapping[str, ModelFile], self_test: bool = True
) -> Run:
    """Return the open run of these files on a device, with a self-test or without, or a new one."""
    label = f"breakdown-{device.name}-{variant.name}-{_digest(files)[:8]}"
    return find_run(runs_root(), label if self_test else f"{label}-untested")


@dataclass(frozen=True)
class RemovalOptions:
    """How removals are measured.

    Attributes:
        budget_s: Seconds after which no further pass starts.
        seed: Seed of the schedules.
        progress: Called for every batch, and with messages.
        self_test: Whether the interference self-test runs first.
    """

    budget_s: float
    seed: int
    progress: ProgressCallback
    self_test: bool = True


def measure_removals(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    parts: Mapping[Kind, Census],
    run: Run,
    unexported: Mapping[str, str],
    options: RemovalOptions,
) -> Attribution:
    """Measure a network and its removals, resuming where the run's journal ends.

    Args:
        device: The device.
        variant: How the models run.
        files: Model files by journal id.
        parts: Parts of the network by kind.
        run: Folder of the journal.
        unexported: Why there is no file without some kind.
        options: Budget, seed, progress, self-test.

    Raises:
        InvalidArtifactError: The device can't run the whole network.
        MeasurementRejectedError: The device is too noisy.
        DeviceError: It is not there, or was lost.
    """
    measured = measure(
        device,
        variant,
        ModelSet(dict(files), WHOLE, _digest(files), options.seed),
        run.journal,
        Policy.of(variant.is_simulated, options.self_test),
        EngineOptions(budget_s=options.budget_s, progress=options.progress),
    )
    if WHOLE in measured.failures:
        raise InvalidArtifactError(
            f"the network can't be measured: {measured.failures[WHOLE]}", code="reference_failed"
        )
    ratios = {kind: measured.estimates.ratios[kind] for kind in KINDS if kind in measured.estimates.ratios}
    failures = {**unexported, **measured.failures}
    notes = [f"without {TITLES[kind]}: {why}" for kind in KINDS if (why := failures.get(kind))]
    notes += [
        f"{TITLES[kind]}: {counts.parts - counts.removable} of {counts.parts} parts can't be removed"
        for kind, counts in parts.items()
        if counts.removable < counts.parts
    ]
    return by_removal(measured.reference.ms, ratios, notes)


def _digest(files: Mapping[str, ModelFile]) -> str:
    return hashlib.sha256(" ".join(file.sha256 for file in files.values()).encode()).hexdigest()
