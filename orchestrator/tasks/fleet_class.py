"""One class of a fleet's devices on its way to a LUT: units opened, models exported, all of them measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import BlocktimeError, few
from luts.format.store import LutStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.fleet.executor import FleetExecutor, LeaseEndedError
from orchestrator.fleet.units import DeviceClass, UnfitUnitError, Unit
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import BatchRecord, EndRecord, MeasurementRejectedError, Record
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import check_runtime, make_header, make_identity, measure_with
from orchestrator.tasks.exported_plan import ExportedPlan, export_plan
from orchestrator.tasks.plan import PlanChoice, choose_plan, policy_of
from orchestrator.tasks.profile import Profile, compare_with_truth
from orchestrator.tasks.profiled_lut import lut_of, prediction_width_of, run_label, subject_of
from orchestrator.tasks.progress import Note, Progress, steps
from orchestrator.tasks.target import Target, greet, lut_name
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import HelloReply


@dataclass(frozen=True)
class FleetProfile:
    """A class's LUT; `batches` are kept ones by the serial of the unit that ended them."""

    name: str
    profile: Profile
    batches: Mapping[str, int]


@dataclass(frozen=True)
class Order:
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


class ClassProfiling:
    """One class on its way to a LUT: its units are opened, its models exported, and then all is measured."""

    def __init__(
        self, device_class: DeviceClass, target: Target, crew: FleetExecutor, order: Order, progress: Progress
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
        except LeaseEndedError:
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
            self._crew.prepare(log, self._variant, lambda *unit: self._check(log, subject, *unit))
            measurement = measure_with(
                self._crew,
                log,
                hello,
                subject,
                self._policy,
                EngineOptions(
                    budget_s=self._order.budget_s,
                    progress=steps(self._progress),
                    prediction_half_width=prediction_width_of(exported.plan, exported.files),
                ),
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

    def _begun(self, subject: ModelSet) -> tuple[HelloReply, MeasurementLog]:
        """The journal, and the hello of the first unit that may go on with it."""
        why: BlocktimeError | None = None
        for unit in self._crew.open():
            try:
                hello = greet(unit.device)
                check_runtime(self._class.name, hello, self._variant)
                header = make_header(
                    hello, self._variant, subject, self._policy, unit.device.fixed_performance
                )
                return hello, MeasurementLog(self._run.journal, header)
            except (DeviceError, MeasurementRejectedError) as error:
                why = error
        raise why or DeviceError(f"all units of {self._class.name} are out; run the same command again")

    def _check(
        self, log: MeasurementLog, subject: ModelSet, serial: str, hello: HelloReply, fixed: bool
    ) -> None:
        """Raise UnfitUnitError unless the unit has the journal's device model, system and runtime."""
        began = log.header.identity
        now = make_identity(hello, self._variant, subject, self._policy, fixed)
        if changed := began.differences(now):
            raise UnfitUnitError(
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
