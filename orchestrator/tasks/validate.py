"""A LUT's predictions against fresh measurements."""

from __future__ import annotations

import random
from dataclasses import dataclass

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.store import LutRef
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import lock_device
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.validate import Validation, compare_latencies, summarise_validation
from orchestrator.plan.plan import classifier_note, model_id, with_classifier_prices
from orchestrator.tasks.measured import measure_with_lut
from orchestrator.tasks.options import (
    REQUIRED,
    ExportOptions,
    MeasureOptions,
    StoreOptions,
    advanced_option,
    budget,
    budget_option,
    target_option,
)
from orchestrator.tasks.predict import proxy_for
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import DeviceOptions
from search.spaces import Arch, Space
from search.spaces.scope import covered_space

ATTEMPTS_PER_ARCH = 50
"""Draws for each architecture asked for, before the space counts as used up."""


@dataclass(frozen=True, kw_only=True)
class ValidateCommand(ExportOptions, StoreOptions):
    """Compare predicted and measured latency of random architectures that the LUT has not seen."""

    lut: str = target_option(REQUIRED, "LUT to check, by name or path.")
    target: DeviceOptions
    count: int = budget_option(30, "Number of new architectures.", flag="--count -n", minimum=2)
    budget_s: float = budget("10m")
    seed: int = advanced_option(0, "Random seed of the architectures and the schedule.")
    classes: int | None = advanced_option(
        None, "Classes of the architectures.", minimum=1, shown="as the LUT measured"
    )
    reuse: bool = advanced_option(False, "Reuse an identical finished measurement.")


def validate(options: ValidateCommand, progress: Progress = silent) -> Validation:
    """Measure random architectures that a LUT has not seen next to its reference, and compare with its predictions.

    The result is also written to `validation.json` in the run's folder.

    Raises:
        UsageError: an unknown LUT or device, a LUT of an older version of its space, or a space with fewer new
            architectures than requested.
        InvalidArtifactError: the device can't run a model.
        DeviceError: the device was not found, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    store, device, classes = options.open_store(progress), options.target.device, options.classes
    ref = store.resolve(options.lut)
    table = store.load(ref.path)
    if proxy_for(ref, table, device, store) is not None:
        text = f"{ref} is not of {device}: both sides are in ms of its reference, so only shares are compared"
        progress(Note(f"warning: {text}"))
    variant = Variant.parse(table.meta.variant)
    access = options.target.access_for(variant.runtime)
    if table.meta.fixed_performance != access.fixed_performance:
        progress(Note(_unlike(ref, table)))
    if classes is not None:
        priced = with_classifier_prices(table, classes)
        if note := classifier_note(table, priced, classes):
            progress(Note(note))
        table = priced
    archs = fresh_archs(covered_space(table, classes), table, options.count, options.seed)
    specs = {model_id(arch.keys()): variant.export_spec(arch.keys()) for arch in archs}
    with resolve(device, access) as there, lock_device(there):
        there.check_ready()
        measurement, run = measure_with_lut(
            there,
            variant,
            table,
            specs,
            MeasureOptions(budget_s=options.budget_s, seed=options.seed, workers=options.workers),
            reuse=options.reuse,
            progress=progress,
        )
    compared = compare_latencies(table.latency_model, archs, measurement, table.meta.reference_ms)
    validation = summarise_validation(str(ref), device, table, compared, measurement)
    path = run.folder / "validation.json"
    validation.save(path)
    run.finish(str(path))
    return validation


def _unlike(ref: LutRef, lut: Lut) -> str:
    if lut.meta.fixed_performance:
        return (
            f"note: {ref} was measured in fixed performance mode, with other clocks; measure with "
            "--fixed-performance, or all latencies differ"
        )
    return f"note: {ref} was not measured in fixed performance mode; leave --fixed-performance out, or all differ"


def fresh_archs(space: Space, lut: Lut, count: int, seed: int) -> list[Arch]:
    """Random architectures of `space`, the part that the LUT covers, that were not measured for it.

    Raises:
        UsageError: the space does not have so many left.
    """
    measured = {model.model_id for model in lut.models}
    rng = random.Random(f"validate:{space.digest}:{seed}")
    fresh: dict[str, Arch] = {}
    for _ in range(count * ATTEMPTS_PER_ARCH):
        arch = space.sample(rng)
        name = model_id(arch.keys())
        if name not in measured:
            fresh.setdefault(name, arch)
        if len(fresh) == count:
            return list(fresh.values())
    raise UsageError(
        f"{space.name} has only {len(fresh)} architectures that the LUT has not seen; ask for fewer",
        code="space_too_small",
    )
