"""Attribution by removal, on any device: the network beside itself without one kind after another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

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
    """Parts of a network by kind."""
    return census(*build_module(spec), spec.backend)


def removal_specs(spec: ExportSpec, parts: Mapping[Kind, Census]) -> dict[str, ExportSpec]:
    """The network, and without each kind that can be removed, by journal id."""
    return {WHOLE: spec} | {
        kind: replace(spec, without=kind) for kind in KINDS if kind in parts and parts[kind].removable
    }


def find_removal_run(
    device: Device, variant: Variant, files: Mapping[str, ModelFile], self_test: bool = True
) -> Run:
    """The open run of these files on a device, with a self-test or without, or a new one."""
    label = f"breakdown-{device.name}-{variant.name}-{_digest(files)[:8]}"
    return find_run(runs_root(), label if self_test else f"{label}-untested")


def measure_removals(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    parts: Mapping[Kind, Census],
    run: Run,
    unexported: Mapping[str, str],
    *,
    budget_s: float,
    seed: int,
    self_test: bool = True,
    progress: ProgressCallback,
) -> Attribution:
    """Measure a network and its removals, going on where the run's journal ends.

    `unexported` says why there is no file without some kind; `parts` are those of the network.

    Raises:
        InvalidArtifactError: the device can't run the whole network.
        MeasurementRejectedError: the device is too noisy.
        DeviceError: it is not there, or was lost for good.
    """
    subject = ModelSet(dict(files), WHOLE, _digest(files), seed)
    measured = measure(
        device,
        variant,
        subject,
        run.journal,
        Policy.of(variant.is_simulated, self_test),
        EngineOptions(budget_s=budget_s, progress=progress),
    )
    if WHOLE in measured.failures:
        raise InvalidArtifactError(f"the network can't be measured: {measured.failures[WHOLE]}")
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
