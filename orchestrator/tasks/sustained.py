"""One network run without a pause for minutes: its latency against time, heat and clock."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from luts.estimate.statistics import Percentiles
from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import Usage, sustained_usage
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import Header
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.journal.sustained import (
    Slowdown,
    SustainedPoint,
    slowdown,
    sustained_percentiles,
    sustained_points,
)
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import check_runtime, make_identity
from orchestrator.measure.sustained import run_sustained
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import check_any_left, files_that_can_be, given_models
from orchestrator.tasks.networks import Networks, at_resolution, by_name, spec_of
from orchestrator.tasks.progress import Progress, silent, steps
from orchestrator.tasks.side_by_side import journal_id
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile

LABEL = "sustained"
"""What names of these runs begin with."""


@dataclass(frozen=True)
class SustainedRun:
    """Latency over time; `percentiles` are of all its calls."""

    model: str
    device: str
    variant: str
    simulated: bool
    points: tuple[SustainedPoint, ...]
    percentiles: Percentiles
    slowdown: Slowdown
    usage: Usage
    folder: Path

    @property
    def segments(self) -> int:
        """Parts of the run: more than one where it was interrupted and the device could cool."""
        return 1 + max(point.segment for point in self.points)

    @property
    def warning(self) -> str:
        """For titles: that the numbers are made up, where they are."""
        return ", SIMULATED: not measured on any device" if self.simulated else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "model": self.model,
            "device": self.device,
            "variant": self.variant,
            "numbers": "simulated" if self.simulated else "measured",
            "segments": self.segments,
            "verdict": str(self.slowdown),
            **asdict(self.slowdown),
            **self.percentiles.columns(),
            **asdict(self.usage),
            "points": [asdict(point) for point in self.points],
        }


def measure_sustained(
    networks: Networks,
    target: Target | str,
    *,
    files: Sequence[Path] = (),
    resolution: int | None = None,
    duration_s: float = 600.0,
    workers: int | None = None,
    progress: Progress = silent,
) -> SustainedRun:
    """Run one network, or one model file, without a pause; goes on with a run that was cut off.

    The device is measured although it throttles: that is what is looked for.

    Args:
        networks: One; or none and a file.
        target: The device; all else by default if it is its name alone.
        files: A model that is exported already.
        resolution: Side of the input image; the network's own by default.
        duration_s: Time of calls in all.
        workers: Exporting processes; all cores by default.
        progress: Told of every chunk.

    Raises:
        UsageError: not one network, or a variant that there is not.
        BlocktimeError: it can't be exported.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the device is in no state to be measured.
    """
    target = Target.of(target)
    chosen = by_name(networks)
    if len(chosen) + len(files) != 1:
        raise UsageError("a sustained run is of one network; give one --model, --arch or --artifact")
    target = replace(target, allow=tuple(dict.fromkeys((*target.allow, "throttled"))))
    specs = {
        name: spec_of(at_resolution(name, network, resolution), target.variant)
        for name, network in chosen.items()
    }
    with given_models(files) as given, target.found() as device:
        models, _, unexported = files_that_can_be(target.variant, specs, workers, progress)
        models |= given
        check_any_left(target.variant, models, unexported)
        variant = target.variant_on(device)
        ((name, file),) = models.items()
        run = find_run(runs_root(), f"{LABEL}-{device.name}-{variant.name}-{file.sha256[:8]}")
        run.name_models({journal_id(name): name})
        _measure(device, variant, journal_id(name), file, run, duration_s, progress)
    run.finish(LABEL)
    return read_sustained(run)


def is_sustained(run: Run) -> bool:
    """Whether a run is one of these."""
    return run.folder.resolve().name.startswith(f"{LABEL}-")


def read_sustained(run: Run) -> SustainedRun:
    """What a sustained run's journal says so far.

    Raises:
        InvalidArtifactError: it is damaged, or holds no calls.
    """
    records = read_log(run.journal)
    header, points = records[0], sustained_points(records)
    assert isinstance(header, Header)
    if not points:
        raise InvalidArtifactError(f"{run.journal} holds no calls yet; run the measurement first")
    return SustainedRun(
        model=run.model_names().get(header.reference_id, header.reference_id),
        device=header.identity.device_model,
        variant=header.identity.variant,
        simulated=header.simulated,
        points=tuple(points),
        percentiles=sustained_percentiles(records),
        slowdown=slowdown(points),
        usage=sustained_usage(records),
        folder=run.folder,
    )


def _measure(
    device: Device,
    variant: Variant,
    model: str,
    file: ModelFile,
    run: Run,
    duration_s: float,
    progress: Progress,
) -> None:
    link = DeviceConnection(device, variant.runtime, variant.load_options)
    hello = link.hello()
    check_runtime(device.name, hello, variant)
    subject = ModelSet({model: file}, model, file.sha256, seed=0)
    header = Header(
        identity=make_identity(
            hello, variant, subject, Policy.of(variant.is_simulated), device.fixed_performance
        ),
        reference_id=model,
        seed=0,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        simulated=hello.device.simulated,
    )
    try:
        with MeasurementLog(run.journal, header) as log:
            run_sustained(link, file, log, duration_s, steps(progress))
    finally:
        link.drop()
