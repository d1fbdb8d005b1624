"""One network run without a pause for minutes: its latency against time, heat and clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from luts.estimate.statistics import Percentiles
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.table import Column, DrawnResult, Table, filled
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import Usage, sustained_usage
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import Header
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.journal.sustained import (
    Slowdown,
    SustainedPoint,
    merge_points,
    slowdown,
    sustained_percentiles,
    sustained_points,
)
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import check_runtime, make_header
from orchestrator.measure.sustained import run_sustained
from orchestrator.plan.plan import Policy
from orchestrator.tasks.measured import journal_id
from orchestrator.tasks.models import check_any_left, exportable_files, user_model_files
from orchestrator.tasks.networks import NetworkOptions, spec_of
from orchestrator.tasks.options import ExportOptions, artifact_option, budget_option
from orchestrator.tasks.parsing import parse_budget
from orchestrator.tasks.progress import Progress, silent, steps
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile

LABEL = "sustained"
"""Beginning of the names of sustained runs."""


SHOWN_ROWS = 20
"""Rows of the table; JSON and CSV have every chunk of calls."""


@dataclass(frozen=True, kw_only=True)
class SustainedCommand(ExportOptions, NetworkOptions):
    """Run one network without a pause: latency against time, heat and clock.

    Without --output, pictures are written to the run's folder.
    """

    target: Target
    files: tuple[Path, ...] = artifact_option()
    duration_s: float = budget_option(
        600.0,
        "How long the network runs: 90s, 10m or 1h.",
        flag="--duration",
        parse=parse_budget,
        shown="10m",
        metavar="TIME",
    )


@dataclass(frozen=True)
class SustainedRun(DrawnResult):
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

    default_pictures: ClassVar = ("sustained.png", "sustained.svg")

    COLUMNS: ClassVar = (
        Column("minutes", "minutes", 1),
        Column("p50_ms", "p50 ms", 3),
        Column("p90_ms", "p90 ms", 3),
        Column("thermal_state", "thermal state", spare=1),
        Column("headroom", "headroom", 2, spare=2),
        Column("celsius", "°C", 1, spare=1),
        Column("mhz", "MHz", 0, spare=2),
        Column("cap_mhz", "at most", 0, spare=3),
        Column("calls", "calls", spare=4),
        Column("segment", "part", spare=1),
    )

    @property
    def segments(self) -> int:
        """Number of parts: more than one if the run was interrupted and the device could cool."""
        return 1 + max(point.segment for point in self.points)

    @property
    def title(self) -> str:
        """Title of table and picture."""
        warning = ", SIMULATED: not measured on any device" if self.simulated else ""
        return f"{self.model} on {self.device}, {self.variant}{warning}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
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

    def report(self) -> Iterator[Table | str]:
        """Yield latency over time in at most `SHOWN_ROWS` rows, the slowdown, percentiles and usage."""
        rows = [
            asdict(point) | {"minutes": point.start_s / 60, "segment": point.segment + 1}
            for point in merge_points(self.points, SHOWN_ROWS)
        ]
        columns = [
            column for column in filled(self.COLUMNS, rows) if column.name != "segment" or self.segments > 1
        ]
        yield Table(f"{self.title}, without a pause", columns, rows)
        yield str(self.slowdown)
        yield str(self.percentiles)
        if usage := str(self.usage):
            yield usage
        if self.segments > 1:
            yield f"in {self.segments} parts: it was interrupted, and the device cooled in between"

    def draw(self) -> Any:
        """Draw latency, heat and clock against time."""
        from orchestrator.report.figures import sustained_figure

        return sustained_figure(self.points, self.slowdown, self.title)


def measure_sustained(options: SustainedCommand, progress: Progress = silent) -> SustainedRun:
    """Run one network, or one model file, without a pause; resumes an interrupted run.

    The device is measured even if it throttles, since that is what the run is for.

    Raises:
        UsageError: not exactly one network, or an unknown variant.
        BlocktimeError: as `measure_networks`.
    """
    chosen = options.named()
    if len(chosen) + len(options.files) != 1:
        raise UsageError(
            "a sustained run takes one network; name one, or give one --artifact FILE", code="not_one_network"
        )
    allow = tuple(dict.fromkeys((*options.target.allow, "throttled")))
    target = replace(options.target, allow=allow)
    specs = {name: spec_of(network, target.variant) for name, network in chosen.items()}
    with user_model_files(options.files) as given, target.found() as device:
        models, _, unexported = exportable_files(target.variant, specs, options.workers, progress)
        models |= given
        check_any_left(target.variant, models, unexported)
        variant = target.variant_on(device)
        ((name, file),) = models.items()
        run = find_run(runs_root(), f"{LABEL}-{device.name}-{variant.name}-{file.sha256[:8]}")
        run.name_models({journal_id(name): name})
        _measure(device, variant, journal_id(name), file, run, options.duration_s, progress)
    run.finish(LABEL)
    return read_sustained(run)


def is_sustained(run: Run) -> bool:
    """Return whether a run is a sustained one."""
    return run.folder.resolve().name.startswith(f"{LABEL}-")


def read_sustained(run: Run) -> SustainedRun:
    """Read a sustained run's journal as far as it goes; InvalidArtifactError if it is damaged or holds no calls."""
    records = read_log(run.journal)
    header, points = records[0], sustained_points(records)
    assert isinstance(header, Header)
    if not points:
        raise InvalidArtifactError(
            f"{run.journal} holds no calls yet; run the measurement first", code="empty_journal"
        )
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
    with DeviceConnection.opened(device, variant) as link:
        hello = link.hello()
        check_runtime(device.name, hello, variant)
        subject = ModelSet({model: file}, model, file.sha256, seed=0)
        policy = Policy.of(variant.is_simulated)
        header = make_header(hello, variant, subject, policy, device.fixed_performance)
        with MeasurementLog(run.journal, header) as log:
            run_sustained(link, file, log, duration_s, steps(progress))
