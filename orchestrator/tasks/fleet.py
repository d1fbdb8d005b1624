"""Every block of a space measured on classes of devices, many units each: a new version of each class's LUT."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from luts.format.files import check_folder
from luts.format.processes import open_cluster
from luts.format.store import LutStore, lut_store
from orchestrator.fleet.executor import FleetExecutor, FleetLimits
from orchestrator.fleet.remote import remote_openers
from orchestrator.fleet.units import DeviceClass
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.fleet_class import ClassProfiling, FleetProfile, Order
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.progress import Event, Note, Progress, Step, silent
from orchestrator.tasks.target import Target

_POLL_S = 0.5
_STOP_S = 30.0


def profile_fleet(
    space: str,
    classes: Sequence[DeviceClass],
    choice: PlanChoice | None = None,
    *,
    target: Target | None = None,
    limits: FleetLimits | None = None,
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
    order = Order(
        space, choice or PlanChoice(), budget_s, narrow, self_test, pace_us, fresh, reuse, store, workers
    )
    targets = [_target(device_class, target or Target("")) for device_class in classes]
    for one in targets:
        _ = one.variant  # what is wrong with it is told before anything is started
    progress = _one_at_a_time(progress)
    with ExitStack() as stack:
        cluster = open_cluster("bench fleet", {one.resource: one.units for one in classes})
        stack.callback(cluster.close)
        parts = []
        for device_class, one in zip(classes, targets, strict=True):
            openers = remote_openers(cluster, device_class, one.access)
            crew = FleetExecutor(
                device_class.name, openers, limits or FleetLimits(), lambda text: progress(Note(text))
            )
            told = _named(progress, device_class.name) if len(classes) > 1 else progress
            parts.append(ClassProfiling(device_class, one, stack.enter_context(crew), order, told))
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


def _target(device_class: DeviceClass, common: Target) -> Target:
    return replace(common, device=device_class.device, agent=device_class.agent)


def _together(parts: Sequence[ClassProfiling]) -> None:
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
