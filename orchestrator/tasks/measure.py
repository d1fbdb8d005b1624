"""Latency of whole networks on a device, all interleaved in one measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from luts.estimate.statistics import REPORTED_PERCENTILES, calls_needed
from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import MAX_BATCH, Variant
from orchestrator.journal.conditions import MemoryUse
from orchestrator.measure.sustained import measure_memory
from orchestrator.tasks.measured import MeasuredNetworks, Setup, measure_together
from orchestrator.tasks.models import Lowered, check_any_left, exportable_files, user_model_files
from orchestrator.tasks.networks import Network, NetworkOptions, as_named, count_networks, spec_of
from orchestrator.tasks.options import (
    MeasureOptions,
    artifact_option,
    keep_fp32_option,
    network_option,
)
from orchestrator.tasks.parsing import parse_numbers
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import Target
from orchestrator.tasks.trained import SupernetWeights, inherit
from orchestrator.winner.card import weighted
from orchestrator.wire.client import ModelFile

P99_CALLS = calls_needed(max(REPORTED_PERCENTILES) / 100)
"""Calls of a network that an interval of its p99 takes."""


def parse_batches(text: str, flag: str = "--batch") -> tuple[int, ...]:
    """Return the ascending batch sizes of `1,8,32`."""
    expected = f"sizes from 1 to {MAX_BATCH}, such as 1,8,32"
    return tuple(sorted(set(parse_numbers(text, flag, expected, (1, MAX_BATCH), "bad_batch"))))


@dataclass(frozen=True, kw_only=True)
class MeasureCommand(MeasureOptions, NetworkOptions):
    """Measure the latency of networks, interleaved in one run; the first is the reference.

    `ms` is what an undisturbed device takes; p50, p90 and p99 are of single calls.
    """

    target: Target
    files: tuple[Path, ...] = artifact_option()
    batches: tuple[int, ...] = network_option(
        (1,),
        "Images per call, such as 1,8,32: reports images per second at each size.",
        flag="--batch",
        parse=parse_batches,
        shown="1",
        metavar="SIZES",
    )
    weights: SupernetWeights = field(default_factory=SupernetWeights)
    keep_fp32: tuple[str, ...] = keep_fp32_option()


def measure_networks(options: MeasureCommand, progress: Progress = silent) -> MeasuredNetworks:
    """Measure networks and model files together; resumes an interrupted run.

    The first network is the reference, or the next one if it can't be exported or run. Such networks are left out.
    Measuring goes on until each network has enough calls for its p99, within the budget.

    Raises:
        UsageError: nothing to measure, an unknown network or variant, a network that the supernet was not trained
            on, or batches that model files or a simulated device don't have.
        BlocktimeError: no network can be exported.
        DeviceError: the device was not found, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    _check(options)
    variant = options.target.variant
    with tempfile.TemporaryDirectory() as folder:
        networks, specs = _specs(options, variant, Path(folder), progress)
        batched = {
            name if batch == 1 else f"{name}, batch {batch}": (name, batch, replace(spec, batch=batch))
            for batch in options.batches
            for name, spec in specs.items()
        }
        measured = measure_specs(
            {label: networks[name] for label, (name, _, _) in batched.items()},
            {label: spec for label, (_, _, spec) in batched.items()},
            options.target,
            options,
            files=options.files,
            progress=progress,
        )
    for name, reason in measured.failures.items():
        progress(Note(f"{name} is left out: {reason}"))
    sizes = {label: (name, batch) for label, (name, batch, _) in batched.items()}
    rows = [(row, *sizes.get(row.model, (row.model, 1))) for row in measured.networks]
    return replace(
        measured, networks=tuple(replace(row, model=name, batch=batch) for row, name, batch in rows)
    )


def _check(options: MeasureCommand) -> None:
    """Raise UsageError for options that contradict each other."""
    options.weights.check()
    if not options.networks and not options.files and options.weights.supernet is None:
        raise UsageError("nothing to measure; name a network or give --artifact FILE", code="no_network")
    if options.keep_fp32 and not options.networks and options.weights.supernet is None:
        raise UsageError(
            "--keep-fp32 applies to networks that are exported, not to --artifact; leave it out",
            code="keep_fp32_without_network",
        )
    if options.batches != (1,) and options.files:
        raise UsageError(
            "a model file has the batch size that it was exported with; leave --batch out", code="fixed_batch"
        )
    if options.batches != (1,) and options.target.variant.is_simulated:
        raise UsageError("a simulated device has batch size 1 only; leave --batch out", code="fixed_batch")


def measure_specs(
    networks: Mapping[str, Network],
    specs: Mapping[str, ExportSpec],
    target: Target,
    options: MeasureOptions,
    *,
    files: Sequence[Path] = (),
    memory: bool = False,
    calls: int = P99_CALLS,
    progress: Progress = silent,
) -> MeasuredNetworks:
    """Measure networks whose export is specified, by name, and model files; `memory` also measures memory alone.

    Raises:
        UsageError: nothing to measure.
        BlocktimeError: as `measure_networks`.
    """
    variant = target.variant
    with user_model_files(files) as given:
        if not specs and not given:
            raise UsageError("nothing to measure; name a network or give a model file", code="no_network")
        with target.found() as device:
            models, artifacts, unexported = exportable_files(variant, specs, options.workers, progress)
            models |= given
            check_any_left(variant, models, unexported)
            variant = target.variant_on(device)
            together = measure_together(device, variant, models, options, calls=calls, progress=progress)
        used = _memory(target, variant, models, together.failures) if memory else {}
        lowered = {name: Lowered.from_file(file.path) for name, file in given.items()}
    together.run.finish("measured")
    lowered |= {name: Lowered(artifact.delegates, artifact.outside) for name, artifact in artifacts.items()}
    counts = count_networks(networks, specs, progress)
    rows = (
        together.network(name, file, counts.get(name), lowered.get(name))
        for name, file in models.items()
        if name not in together.failures
    )
    return MeasuredNetworks(
        Setup.of(together.measurement, variant, target.device),
        together.reference,
        tuple(replace(row, memory=used.get(row.model)) for row in rows),
        unexported | dict(together.failures),
        together.run.folder,
        counts,
    )


def _specs(
    options: MeasureCommand, variant: Variant, folder: Path, progress: Progress
) -> tuple[dict[str, Network], dict[str, ExportSpec]]:
    """Return networks and their exports by name; weights inherited from a supernet are written to `folder`."""
    networks = options.named()
    if options.weights.supernet is None:
        return networks, {
            name: spec_of(network, variant, options.keep_fp32) for name, network in networks.items()
        }
    inherited = inherit(networks, options.resolution, options.weights, folder, progress)
    named = {name: as_named(arch) for name, (arch, _) in inherited.items()}
    specs = {
        name: weighted(spec_of(named[name], variant, options.keep_fp32), file)
        for name, (_, file) in inherited.items()
    }
    return named, specs


def _memory(
    target: Target, variant: Variant, models: Mapping[str, ModelFile], failed: Mapping[str, str]
) -> dict[str, MemoryUse | None]:
    """Return each model's memory alone in an agent (a new one on this machine), measuring small models first."""
    used = {}
    for name in sorted(models.keys() - failed.keys(), key=lambda name: models[name].path.stat().st_size):
        with target.found() as device:
            used[name] = measure_memory(device, variant, models[name])
    return used
