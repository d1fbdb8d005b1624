"""Latency of whole networks on a device, all interleaved in one measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from luts.estimate.statistics import REPORTED_PERCENTILES, calls_needed
from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import MemoryUse
from orchestrator.measure.sustained import measure_memory
from orchestrator.tasks.batched import batched
from orchestrator.tasks.measured import MeasuredNetworks, measured_networks, setup_of
from orchestrator.tasks.models import Lowered, check_any_left, files_that_can_be, given_models
from orchestrator.tasks.networks import (
    Network,
    Networks,
    as_named,
    at_resolution,
    by_name,
    count_networks,
    spec_of,
)
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.side_by_side import measure_what_can_be
from orchestrator.tasks.target import Target
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.card import weighted
from orchestrator.wire.client import ModelFile


def measure_networks(
    networks: Networks,
    target: Target | str,
    *,
    files: Sequence[Path] = (),
    resolution: int | None = None,
    trained: Trained | None = None,
    batches: Sequence[int] = (1,),
    fp32: Sequence[str] = (),
    budget_s: float = 120.0,
    seed: int = 0,
    self_test: bool = True,
    pace_us: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> MeasuredNetworks:
    """Measure networks and model files side by side; goes on with a run that was cut off.

    The first of them is the reference, the next one where that can't be exported or run. Such ones are left out. It
    goes on until each has calls enough for its p99, within the budget.

    Args:
        networks: Exported first where the cache does not have them.
        target: The device; all else by default if it is its name alone.
        files: Models that are exported already: `.pte`, or `.mlpackage`, a folder.
        resolution: Side of the input image for all networks; their own by default.
        trained: A supernet to inherit weights from; random ones by default.
        batches: Images that a network computes at once: each is measured at each of these sizes.
        fp32: With precision `mixed` what stays fp32, as of `stays_fp32`.
        budget_s: Seconds after which no further pass is begun.
        seed: Of the schedule.
        pace_us: Microseconds between the starts of calls; back to back by default.
        self_test: Ask the device first what settle runs and the company of other models cost.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch.

    Raises:
        UsageError: a network or variant that there is not, a network that the supernet was not trained on, or
            another batch than 1 of model files or of a simulated device.
        BlocktimeError: no network can be exported.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    target = Target.of(target)
    if tuple(batches) != (1,) and files:
        raise UsageError("a model file has the batch that it was exported with; leave --batch out")
    if tuple(batches) != (1,) and target.variant.is_simulated:
        raise UsageError("a simulated device knows batch 1 alone; leave --batch out")
    with tempfile.TemporaryDirectory() as weights:
        chosen, specs = _specs(networks, target.variant, fp32, resolution, trained, Path(weights), progress)
        models, means = batched(specs, batches)
        measured = measure_specs(
            {label: chosen[name] for label, (name, _) in means.items()},
            models,
            target,
            files=files,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            pace_us=pace_us,
            workers=workers,
            progress=progress,
        )
    rows = [(row, *means.get(row.model, (row.model, 1))) for row in measured.networks]
    return replace(
        measured, networks=tuple(replace(row, model=name, batch=batch) for row, name, batch in rows)
    )


def measure_specs(
    networks: Mapping[str, Network],
    specs: Mapping[str, ExportSpec],
    target: Target,
    *,
    files: Sequence[Path] = (),
    budget_s: float,
    seed: int = 0,
    self_test: bool = True,
    pace_us: int = 0,
    memory: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> MeasuredNetworks:
    """`measure_networks` of networks by name of which is known how each is exported; `memory`: ask for that too."""
    variant = target.variant
    with given_models(files) as given:
        if not specs and not given:
            raise UsageError("nothing to measure")
        with target.found() as device:
            models, artifacts, unexported = files_that_can_be(variant, specs, workers, progress)
            models |= given
            check_any_left(variant, models, unexported)
            variant = target.variant_on(device)
            together = measure_what_can_be(
                device,
                variant,
                models,
                budget_s=budget_s,
                seed=seed,
                self_test=self_test,
                pace_us=pace_us,
                calls=calls_needed(max(REPORTED_PERCENTILES) / 100),
                progress=progress,
            )
        used = _memory(target, variant, models, together.failures) if memory else {}
        lowered = {name: Lowered.of_file(file.path) for name, file in given.items()}
    together.run.finish("measured")
    lowered |= {name: Lowered.of(artifact) for name, artifact in artifacts.items()}
    counted = {name: network for name, network in networks.items() if name in models}
    rows = measured_networks(models, together, count_networks(counted, specs, progress), lowered)
    return MeasuredNetworks(
        setup_of(together.measurement, variant),
        together.reference,
        tuple(replace(row, memory=used.get(name)) for name, row in rows.items()),
        unexported | dict(together.failures),
        together.run.folder,
    )


def _specs(
    networks: Networks,
    variant: Variant,
    fp32: Sequence[str],
    resolution: int | None,
    trained: Trained | None,
    weights: Path,
    progress: Progress,
) -> tuple[dict[str, Network], dict[str, ExportSpec]]:
    """Networks by name, and how each is exported: with random weights, or a supernet's, which a folder gets."""
    chosen = {name: at_resolution(name, network, resolution) for name, network in by_name(networks).items()}
    if trained is None or trained.supernet is None:
        return chosen, {name: spec_of(network, variant, fp32) for name, network in chosen.items()}
    inherited = inherit(chosen, resolution, trained, weights, progress)
    named = {name: as_named(arch) for name, (arch, _) in inherited.items()}
    specs = {
        name: weighted(spec_of(named[name], variant, fp32), file) for name, (_, file) in inherited.items()
    }
    return named, specs


def _memory(
    target: Target, variant: Variant, models: Mapping[str, ModelFile], failed: Mapping[str, str]
) -> dict[str, MemoryUse | None]:
    """Of each model alone in an agent, a fresh one where the device is this machine; small ones come first."""
    used = {}
    for name in sorted(models.keys() - failed.keys(), key=lambda name: models[name].path.stat().st_size):
        with target.found() as device:
            used[name] = measure_memory(device, variant, models[name])
    return used
