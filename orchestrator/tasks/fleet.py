"""A space profiled on classes of devices, many units each: a new version of each class's LUT."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from luts.format.errors import BlocktimeError, shorten
from luts.format.processes import open_cluster
from luts.format.store import LutStore
from luts.format.table import Facts
from orchestrator.export.artifacts.spec import Variant
from orchestrator.fleet.executor import FleetExecutor, FleetLimits, LeaseEndedError
from orchestrator.fleet.remote import remote_openers
from orchestrator.fleet.units import DeviceClass, UnfitUnitError, parse_classes
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import BatchRecord, EndRecord, MeasurementRejectedError, Record
from orchestrator.journal.runs import runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import check_runtime, make_header, make_identity, measure_with
from orchestrator.tasks.exported_plan import ExportedPlan
from orchestrator.tasks.luts import provenance
from orchestrator.tasks.options import REQUIRED, advanced_option, target_option
from orchestrator.tasks.parsing import parse_budget
from orchestrator.tasks.plan import SpaceProfilingOptions
from orchestrator.tasks.profile import Profile, ProfilingRun, open_lut_folder
from orchestrator.tasks.progress import Event, Note, Progress, Step, silent, steps
from orchestrator.tasks.target import Target, greet, lut_name
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import HelloReply

_POLL_S = 0.5
_STOP_S = 30.0


@dataclass(frozen=True)
class FleetTarget(Target):
    """How models run and devices are driven; each class sets the device and the agent."""

    device: str = ""
    agent: str = "python"


@dataclass(frozen=True, kw_only=True)
class FleetCommand(SpaceProfilingOptions):
    """Profile a space on many phones at once: one LUT for each class of them.

    Hosts join with `ray start --address=... --resources='{"pixel8": 2}'`; without RAY_ADDRESS all units are on this
    machine. Rerun the same command to resume an interrupted run.
    """

    devices: tuple[DeviceClass, ...] = target_option(
        REQUIRED,
        "Classes with their number of units, such as pixel8=3,iphone13=1 (also host, host:kotlin, simulated), or a "
        ".json file of them.",
        parse=parse_classes,
        metavar="CLASSES",
    )
    target: FleetTarget = field(default_factory=FleetTarget)
    lease_s: float = advanced_option(
        900.0,
        "Longest time for a batch; then another unit takes over.",
        flag="--lease",
        parse=parse_budget,
        shown="15m",
        metavar="TIME",
    )
    limits: FleetLimits | None = None
    """All limits of the fleet, for programs; by default those of `lease_s`."""


@dataclass(frozen=True)
class FleetProfile:
    """A class's LUT; `batches` are kept ones by the serial of the unit that ended them."""

    name: str
    profile: Profile
    batches: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return class, path, batches and provenance."""
        lut, path = self.profile.lut, self.profile.path
        return {"class": self.name, "path": str(path), "batches": self.batches, "meta": lut.meta.model_dump()}

    def report(self) -> Iterator[Facts]:
        """Yield class, batches and provenance."""
        batches = ", ".join(f"{serial} {count}" for serial, count in sorted(self.batches.items()))
        facts = {"class": self.name, "batches": batches, **provenance(self.profile.lut)}
        yield Facts(str(self.profile.path), facts)


def profile_fleet(options: FleetCommand, progress: Progress = silent) -> list[FleetProfile]:
    """Profile a space on every class, whose units share the batches; one LUT and one journal per class.

    Units are Ray actors on the hosts that offer the classes as resources. An interrupted run resumes when this is
    called with the same options again, with the units that are there then.

    Raises:
        UsageError: as `profile`, or Ray is not installed.
        DeviceError: a class has no unit, or none for long. Other classes are finished first.
        MeasurementRejectedError: all units of a class are too noisy, or differ from those that the run began with.
    """
    store = open_lut_folder(options, progress)
    runs_root()
    classes, limits = options.devices, options.limits or FleetLimits(lease_s=options.lease_s)
    targets = [replace(options.target, device=each.device, agent=each.agent) for each in classes]
    for one in targets:
        _ = one.variant  # raises before anything starts
    progress = _one_at_a_time(progress)
    with ExitStack() as stack:
        cluster = open_cluster("bench fleet", {one.name: one.units for one in classes})
        stack.callback(cluster.close)
        parts = []
        for device_class, one in zip(classes, targets, strict=True):
            openers = remote_openers(cluster, device_class, one.access)
            crew = FleetExecutor(device_class.name, openers, limits, lambda text: progress(Note(text)))
            named = _named(progress, device_class.name) if len(classes) > 1 else progress
            parts.append(ClassProfiling(device_class, one, stack.enter_context(crew), options, store, named))
        for part in parts:
            part.open()
        for part in parts:
            part.prepare()
        _together(parts)
    errors = [part.error for part in parts if part.error is not None]
    for error in errors[1:]:
        progress(Note(str(error)))
    if errors:
        raise errors[0]
    return [part.result for part in parts if part.result is not None]


def _together(parts: Sequence[ClassProfiling]) -> None:
    """Measure all classes at the same time; an exception in this thread stops them."""
    threads = [threading.Thread(target=part.measure, daemon=True) for part in parts]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_POLL_S)
    except BaseException:
        for part in parts:
            part.close()
        for thread in threads:
            thread.join(_STOP_S)
        raise


def _one_at_a_time(progress: Progress) -> Progress:
    lock = threading.Lock()

    def show(event: Event) -> None:
        with lock:
            progress(event)

    return show


def _named(progress: Progress, name: str) -> Progress:
    """Return a progress whose steps begin with the class's name."""
    return lambda event: progress(
        replace(event, what=f"{name}: {event.what}") if isinstance(event, Step) else event
    )


class ClassProfiling:
    """One class on its way to a LUT: its units are opened, its models exported, and then all is measured."""

    def __init__(
        self,
        device_class: DeviceClass,
        target: Target,
        crew: FleetExecutor,
        options: FleetCommand,
        store: LutStore,
        progress: Progress,
    ):
        """Begin with a class whose units are not open yet."""
        self._class, self._target, self._crew = device_class, target, crew
        self._options, self._store, self._progress = options, store, progress
        self.result: FleetProfile | None = None
        self.error: BlocktimeError | None = None

    def open(self) -> None:
        """Open the units; raise DeviceError if the class has none."""
        self._units = self._crew.open()
        serials = shorten([unit.serial for unit in self._units])
        self._progress(
            Note(f"{self._class.name}: {len(self._units)} of {self._class.units} units: {serials}")
        )
        name = lut_name(self._units[0].device, None)
        self._profiling = ProfilingRun(self._options, self._target, name, self._store, self._progress)

    def prepare(self) -> None:
        """Export the models; a run that is already finished is the result."""
        profiling = self._profiling
        profiling.prepare(self._variant_on_a_unit, prefix="fleet-")
        if profiling.exported is None:
            batches = kept_by_unit(read_log(profiling.run.journal))
            self.result = FleetProfile(self._class.name, profiling.finished(), batches)

    def measure(self) -> None:
        """Measure, and set `result` or `error`; neither if the fleet was closed meanwhile."""
        try:
            if self.result is None and self._profiling.exported is not None:
                self.result = self._measured(self._profiling.exported)
        except LeaseEndedError:
            pass
        except BlocktimeError as error:
            self.error = error
        except Exception as error:
            self.error = BlocktimeError(
                f"{self._class.name}: unexpected {type(error).__name__}: {error}; report it",
                code="unexpected_error",
            )

    def close(self) -> None:
        """End the measurement."""
        self._crew.close()

    def _measured(self, exported: ExportedPlan) -> FleetProfile:
        profiling, models = self._profiling, exported.model_set
        self._progress(Note(f"run {profiling.run.folder}"))
        hello, log = self._begun(models)
        with log:
            self._crew.prepare(log, profiling.variant, lambda *unit: self._check(log, models, *unit))
            options = EngineOptions(
                budget_s=self._options.budget_s,
                progress=steps(self._progress),
                prediction_half_width=exported.prediction_half_width,
            )
            measurement = measure_with(self._crew, log, hello, models, profiling.policy, options)
            batches = kept_by_unit(log.records)
        return FleetProfile(self._class.name, profiling.write(exported, measurement), batches)

    def _begun(self, models: ModelSet) -> tuple[HelloReply, MeasurementLog]:
        """Return the journal, and the hello of the first unit that may continue it."""
        profiling = self._profiling
        why: BlocktimeError | None = None
        for unit in self._crew.open():
            try:
                hello = greet(unit.device)
                check_runtime(self._class.name, hello, profiling.variant)
                header = make_header(
                    hello, profiling.variant, models, profiling.policy, unit.device.fixed_performance
                )
                return hello, MeasurementLog(profiling.run.journal, header)
            except (DeviceError, MeasurementRejectedError) as error:
                why = error
        raise why or DeviceError(
            f"all units of {self._class.name} are out; run the same command again", code="no_unit"
        )

    def _check(
        self, log: MeasurementLog, models: ModelSet, serial: str, hello: HelloReply, fixed: bool
    ) -> None:
        """Raise UnfitUnitError unless the unit has the journal's device model, system and runtime."""
        now = make_identity(hello, self._profiling.variant, models, self._profiling.policy, fixed)
        if changed := log.header.identity.differences(now):
            raise UnfitUnitError(
                f"{serial} differs from the units measured so far: {'; '.join(changed)}; it is left out",
                code="unit_differs",
            )

    def _variant_on_a_unit(self) -> Variant:
        for unit in self._units[:-1]:
            with contextlib.suppress(DeviceError):
                return self._target.variant_on(unit.device)
        return self._target.variant_on(self._units[-1].device)


def kept_by_unit(records: Sequence[Record]) -> dict[str, int]:
    """Return the number of kept batches by the serial of the unit that ended them."""
    last = {record.batch: record.unit for record in records if isinstance(record, BatchRecord)}
    return dict(Counter(last[end.batch] for end in records if isinstance(end, EndRecord) and end.kept))
