"""Every block of a space measured on classes of devices, many units each: a new version of each class's LUT."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from luts.format.atomic_file import check_folder
from luts.format.cluster import open_cluster
from luts.format.errors import BlocktimeError
from luts.format.messages import few
from luts.format.store import LutStore, lut_store
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.simulated import PREFIX
from orchestrator.export.artifacts.variant import Variant
from orchestrator.fleet.classes import HOST, DeviceClass
from orchestrator.fleet.crew import Crew, Limits
from orchestrator.fleet.leases import LeaseEnded
from orchestrator.fleet.remote import remote_openers
from orchestrator.fleet.stf import Farm
from orchestrator.fleet.unit import UnfitUnit, Unit
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import BatchRecord, EndRecord, Record
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.session import (
    Subject,
    check_runtime,
    header_of,
    identity_of,
    measure_by,
)
from orchestrator.tasks.exported_plan import ExportedPlan, export_plan
from orchestrator.tasks.plan import PlanChoice, choose_plan, policy_of
from orchestrator.tasks.profile import Profile, compare_with_truth
from orchestrator.tasks.profiled_lut import lut_of, prediction_width_of, run_label, subject_of
from orchestrator.tasks.progress import Event, Note, Progress, Step, silent, steps
from orchestrator.tasks.target import Target, greet, lut_name
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.replies import HelloReply

_ANY_ANDROID = "android:1"
"""A target's device where only an STF knows its name: whatever has an address is an Android phone."""

_POLL_S = 0.5
_STOP_S = 30.0


@dataclass(frozen=True)
class FleetProfile:
    """A class's LUT; `batches` are kept ones by the serial of the unit that ended them."""

    name: str
    profile: Profile
    batches: Mapping[str, int]


@dataclass(frozen=True)
class _Order:
    """What every class is measured by."""

    space: str
    choice: PlanChoice
    budget_s: float
    narrow: float | None
    self_test: bool
    pace_us: int
    fresh: bool
    reuse: bool
    store: LutStore
    workers: int | None


def profile_fleet(
    space: str,
    classes: Sequence[DeviceClass],
    choice: PlanChoice | None = None,
    *,
    target: Target | None = None,
    farm: Farm | None = None,
    limits: Limits | None = None,
    budget_s: float = 900.0,
    narrow: float | None = None,
    self_test: bool = True,
    pace_us: int = 0,
    fresh: bool = False,
    reuse: bool = False,
    store: LutStore | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[FleetProfile]:
    """Profile a space on every class, its batches shared out to the class's units; one LUT and one journal a class.

    Units are Ray actors on whichever hosts offer the classes as resources. A run that was cut off goes on where it
    was when it is called with the same arguments again, with whatever units are there then.

    Args:
        space: Name of the space.
        classes: Which devices, how many of each.
        choice: What the plans cover and how large they are.
        target: How models run and devices are driven; its device is not looked at.
        farm: An STF whose Android phones are leased; all other units are attached to hosts.
        limits: Patience with units.
        budget_s: Seconds after which no further pass is begun.
        narrow: Half-width of predictions at which measuring ends, a share; 0.015 by default.
        self_test: Ask a unit of each class first what settle runs and the company of other models cost.
        pace_us: Microseconds between the starts of calls; back to back by default.
        fresh: Begin anew where a run was not finished.
        reuse: Keep the LUTs of equal runs that were finished.
        store: Where LUTs are written; the user's by default.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch, and of units that are lost and come back.

    Raises:
        UsageError: as of `profile`; Ray is not installed.
        DeviceError: a class has no unit, or none for long. Other classes are finished first.
        MeasurementRejectedError: all units of a class are too noisy, or are others than the run began with.
    """
    store = store or lut_store()
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    runs_root()
    order = _Order(
        space, choice or PlanChoice(), budget_s, narrow, self_test, pace_us, fresh, reuse, store, workers
    )
    targets = [_target(device_class, target or Target(""), farm) for device_class in classes]
    for one in targets:
        _ = one.variant  # what is wrong with it is told before anything is started
    progress = _one_at_a_time(progress)
    with ExitStack() as stack:
        cluster = open_cluster("bench fleet", {one.resource: one.units for one in classes})
        stack.callback(cluster.close)
        parts = []
        for device_class, one in zip(classes, targets, strict=True):
            leased = farm if one.kind == "android" else None
            openers = remote_openers(cluster, device_class, one.access, leased)
            crew = Crew(device_class.name, openers, limits or Limits(), lambda text: progress(Note(text)))
            told = _named(progress, device_class.name) if len(classes) > 1 else progress
            parts.append(_Part(device_class, one, stack.enter_context(crew), order, told))
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


class _Part:
    """One class on its way to a LUT: its units are opened, its models exported, and then all is measured."""

    def __init__(
        self, device_class: DeviceClass, target: Target, crew: Crew, order: _Order, progress: Progress
    ):
        self._class, self._target, self._crew = device_class, target, crew
        self._order, self._progress = order, progress
        self._policy = policy_of(target.variant, order.narrow, order.self_test, order.pace_us)
        self._units: Sequence[Unit] = ()
        self._exported: ExportedPlan | None = None
        self.result: FleetProfile | None = None
        self.error: BlocktimeError | None = None

    def open(self) -> None:
        """Raises DeviceError where the class has no unit."""
        self._units = self._crew.open()
        serials = few([unit.serial for unit in self._units])
        self._progress(
            Note(f"{self._class.name}: {len(self._units)} of {self._class.units} units: {serials}")
        )

    def prepare(self) -> None:
        """Export what is to be measured; a run that was finished before is the result."""
        order = self._order
        plan, expectation = choose_plan(order.space, order.choice, self._policy, order.budget_s, order.store)
        device_name = lut_name(self._units[0].device, None)
        self._device_name = device_name

        def find(variant: Variant) -> Run:
            label = run_label(f"fleet-{device_name}", plan, variant, order.pace_us)
            return find_run(runs_root(), label, fresh=order.fresh, reuse=order.reuse)

        run = find(self._target.variant) if self._target.is_settled else None
        if run is None or run.result is None:
            self._progress(
                Note(f"{len(plan.models)} models for {len(plan.covered_keys())} blocks of {order.space}")
            )
            self._exported = export_plan(
                plan, self._target.variant, expectation, order.workers, self._progress
            )
        self._variant = self._variant_on_a_unit()
        self._run = run or find(self._variant)
        if self._run.result is not None:
            path = Path(str(self._run.result))
            profile = Profile(path, order.store.load(path), self._run.folder, self._policy)
            self.result = FleetProfile(self._class.name, profile, kept_by_unit(read_log(self._run.journal)))

    def measure(self) -> None:
        """Leaves the result, or the error; nothing where the crew was closed meanwhile."""
        try:
            if self.result is None and self._exported is not None:
                self.result = self._measured(self._exported)
        except LeaseEnded:
            pass
        except BlocktimeError as error:
            self.error = error
        except Exception as error:
            self.error = BlocktimeError(
                f"{self._class.name}: unexpected {type(error).__name__}: {error}; report it"
            )

    def close(self) -> None:
        """End all that is going on."""
        self._crew.close()

    def _measured(self, exported: ExportedPlan) -> FleetProfile:
        subject = subject_of(exported.plan, exported.files)
        self._progress(Note(f"run {self._run.folder}"))
        hello, log = self._begun(subject)
        with log:
            self._crew.work_on(log, self._variant, lambda *unit: self._check(log, subject, *unit))
            measurement = measure_by(
                self._crew,
                log,
                hello,
                subject,
                self._policy,
                budget_s=self._order.budget_s,
                progress=steps(self._progress),
                prediction_width=prediction_width_of(exported.plan, exported.files),
            )
            batches = kept_by_unit(log.records)
        lut = lut_of(exported.plan, exported.files, measurement, self._device_name, exported.unexported)
        path = self._order.store.write(lut)
        self._run.finish(str(path))
        truth = compare_with_truth(self._target.device, self._variant.threads, lut, self._run)
        profile = Profile(
            path, self._order.store.load(path), self._run.folder, self._policy, measurement, truth
        )
        return FleetProfile(self._class.name, profile, batches)

    def _begun(self, subject: Subject) -> tuple[HelloReply, MeasurementLog]:
        """The journal, and the hello of the first unit that may go on with it."""
        why: BlocktimeError | None = None
        for unit in self._crew.open():
            try:
                hello = greet(unit.device)
                check_runtime(self._class.name, hello, self._variant)
                header = header_of(hello, self._variant, subject, self._policy, unit.device.fixed_performance)
                return hello, MeasurementLog(self._run.journal, header)
            except (DeviceError, MeasurementRejectedError) as error:
                why = error
        raise why or DeviceError(f"all units of {self._class.name} are out; run the same command again")

    def _check(
        self, log: MeasurementLog, subject: Subject, serial: str, hello: HelloReply, fixed: bool
    ) -> None:
        """Raises UnfitUnit where the unit's samples are not those of the journal's device, system and runtime."""
        began = log.header.identity
        now = identity_of(hello, self._variant, subject, self._policy, fixed)
        if changed := began.differences(now):
            raise UnfitUnit(
                f"{serial} is not like the units that began: {'; '.join(changed)}; it is left out"
            )

    def _variant_on_a_unit(self) -> Variant:
        for unit in self._units[:-1]:
            try:
                return self._target.variant_on(unit.device)
            except DeviceError:
                continue
        return self._target.variant_on(self._units[-1].device)


def kept_by_unit(records: Sequence[Record]) -> dict[str, int]:
    """Kept batches by the serial of the unit that ended them."""
    last = {record.batch: record.unit for record in records if isinstance(record, BatchRecord)}
    return dict(Counter(last[end.batch] for end in records if isinstance(end, EndRecord) and end.kept))


def _target(device_class: DeviceClass, common: Target, farm: Farm | None) -> Target:
    """Where the class's models run; the names of a farm's phones need not be known here."""
    prefix = device_class.name.partition(":")[0]
    known = farm is None or prefix in (HOST, PREFIX) or known_phone(device_class.name) is not None
    access = replace(common.access, agent=device_class.agent)
    return replace(common, device=device_class.device if known else _ANY_ANDROID, access=access)


def _together(parts: Sequence[_Part]) -> None:
    """Measure all classes at the same time; whatever stops this thread stops them."""
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
    """Steps that say of which class they are."""
    return lambda event: progress(
        replace(event, what=f"{name}: {event.what}") if isinstance(event, Step) else event
    )
