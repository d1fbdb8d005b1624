"""Latency of whole networks on a device, all interleaved in one measurement."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from luts.estimate.percentiles import TOLD, Percentiles, calls_needed
from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.variant import Variant
from orchestrator.export.lower.counting import Counts
from orchestrator.journal.usage import MemoryUse, Usage
from orchestrator.measure.session import Measurement
from orchestrator.measure.usage import memory_of
from orchestrator.tasks.batched import Throughput, batched
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
from orchestrator.tasks.side_by_side import SideBySide, journal_id, measure_what_can_be
from orchestrator.tasks.target import Target
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.write import weighted
from orchestrator.wire.model_file import ModelFile
from orchestrator.wire.replies import DeviceInfo


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network: what it costs on paper and on the device, with 95 % intervals.

    Attributes:
        params: None, as the MACs, of a model file.
        ms: Latency; its interval includes the reference's own.
        ratio: To the reference.
        load_ms: Medians of load times; those of a first load and of compiling are None where the runtime does not
            tell, or where the device had loaded the model before.
        loads: Fresh loads, and rounds in all of them.
        percentiles: Of single calls as they ran, where `ms` is what a quiet device takes.
        delegates: Subgraphs handed to a delegate...
        usage: Memory and energy while it ran alone, where the device tells.
        outside: ...and the operators left to other kernels, with their counts. None where the device decides that.
        memory: That the agent takes for it alone; None where nobody asked, or the device does not tell.
        batch: Images of one call; parameters and MACs are those of one image.
    """

    model: str
    sha256: str
    params: int | None
    conv_linear_macs: int | None
    all_macs: int | None
    ms: float
    ci_low: float
    ci_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    load_ms: float
    first_ms: float | None
    compile_ms: float | None
    loads: int
    rounds: int
    percentiles: Percentiles
    usage: Usage
    delegates: int | None
    outside: Mapping[str, int] | None
    memory: MemoryUse | None = None
    batch: int = 1

    @property
    def throughput(self) -> Throughput:
        """Images a second."""
        return Throughput.of(self.batch, self.ms, self.ci_low, self.ci_high)

    def to_dict(self) -> dict[str, Any]:
        """One level, as JSON and tables have it."""
        fields = asdict(self)
        fields.pop("percentiles")
        fields.pop("memory")
        if self.memory:
            fields |= {"memory_bytes": self.memory.resident, "peak_memory_bytes": self.memory.peak}
        fields.pop("usage")
        return fields | self.throughput.columns() | self.percentiles.columns() | self.usage.columns()


@dataclass(frozen=True)
class Setup:
    """On what networks were measured: `noise_floor` is the spread between two loads of one model, relative."""

    device: DeviceInfo
    variant: Variant
    noise_floor: float

    @property
    def simulated(self) -> bool:
        """Whether the numbers are made up."""
        return self.device.simulated

    @property
    def warning(self) -> str:
        """For titles: that the numbers are made up, where they are."""
        return ", SIMULATED: not measured on any device" if self.simulated else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "device": self.device.model_dump(),
            "variant": self.variant.name,
            "noise_floor": self.noise_floor,
        }


@dataclass(frozen=True)
class MeasuredNetworks:
    """Networks measured side by side; `failures` are those that can't be exported or run, with reasons."""

    setup: Setup
    reference: str
    networks: tuple[MeasuredNetwork, ...]
    failures: Mapping[str, str]
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.setup.to_dict() | {
            "reference": self.reference,
            "models": [network.to_dict() for network in self.networks],
            "failures": dict(self.failures),
        }


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
                calls=calls_needed(max(TOLD) / 100),
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
            used[name] = memory_of(device, variant, models[name])
    return used


def setup_of(measurement: Measurement, variant: Variant) -> Setup:
    """On what a measurement was made."""
    return Setup(measurement.hello.device, variant, measurement.estimates.noise_floor)


def measured_networks(
    files: Mapping[str, ModelFile],
    together: SideBySide,
    counts: Mapping[str, Counts],
    lowered: Mapping[str, Lowered],
) -> dict[str, MeasuredNetwork]:
    """Those that have a latency, by name."""
    return {
        name: _measured(name, file, together.measurement, counts.get(name), lowered.get(name))
        for name, file in files.items()
        if name not in together.failures
    }


def _measured(
    name: str, file: ModelFile, measurement: Measurement, counts: Counts | None, lowered: Lowered | None
) -> MeasuredNetwork:
    ratio = measurement.estimates.ratios[journal_id(name)]
    ms, low, high = measurement.ms(journal_id(name))
    low, high = measurement.reference.widen(ms, low, high)
    return MeasuredNetwork(
        model=name,
        sha256=file.sha256,
        params=counts.params if counts else None,
        conv_linear_macs=counts.conv_linear_macs if counts else None,
        all_macs=counts.all_macs if counts else None,
        ms=ms,
        ci_low=low,
        ci_high=high,
        ratio=math.exp(ratio.log_ratio),
        ratio_low=math.exp(ratio.low),
        ratio_high=math.exp(ratio.high),
        **asdict(measurement.loads[journal_id(name)]),
        loads=ratio.loads,
        rounds=ratio.rounds,
        percentiles=measurement.estimation.percentiles(journal_id(name)),
        usage=measurement.usages.get(journal_id(name), Usage(None, None)),
        delegates=lowered.delegates if lowered else None,
        outside=lowered.outside if lowered else None,
    )
