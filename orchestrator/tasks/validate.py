"""A LUT's predictions against fresh measurements."""

from __future__ import annotations

import random
from dataclasses import replace

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.store import LutRef, LutStore, lut_store
from orchestrator.agent.programs import core_ml_agent
from orchestrator.devices.common.device import Access
from orchestrator.devices.discover import resolve
from orchestrator.devices.lock import held
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.validate import Validation, compare, summarise
from orchestrator.plan.plan import model_id, priced_for, said_of
from orchestrator.tasks.foreign import foreign
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.side_by_side import measure_beside
from search.spaces import Arch, Space
from search.spaces.coverage import covered_space

ATTEMPTS_PER_ARCH = 50
"""Draws for each architecture asked for, before the space counts as used up."""


def validate(
    lut: str,
    device: str,
    *,
    access: Access | None = None,
    count: int = 30,
    budget_s: float = 600.0,
    seed: int = 0,
    classes: int | None = None,
    reuse: bool = False,
    store: LutStore | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Validation:
    """Measure random architectures that a LUT has not seen beside its reference, and compare with its predictions.

    The result is kept as `validation.json` in the run's folder.

    Args:
        lut: Name or path.
        device: The one that the LUT is of.
        access: How the device is driven.
        count: Architectures, at least 2.
        budget_s: Seconds after which no further pass is begun.
        seed: Of the architectures and the schedule.
        classes: Of the architectures; as many as the LUT measured by default.
        reuse: Use an equal measurement that was finished.
        store: Where LUTs lie; the user's and the package's by default.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch.

    Raises:
        UsageError: there is no such LUT or device, the LUT is of an older version of its space, or the space
            has not so many architectures left.
        InvalidArtifactError: the device can't run a model.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    store = store or lut_store()
    ref = store.resolve(lut)
    table = store.load(ref.path)
    if foreign(ref, table, device, store) is not None:
        text = f"{ref} is not of {device}: both sides are in ms of its reference, so only shares are compared"
        progress(Note(f"warning: {text}"))
    variant = Variant.parse(table.meta.variant)
    access = _by_its_runtime(device, variant, access or Access())
    if table.meta.fixed_performance != access.fixed_performance:
        progress(Note(_unlike(ref, table)))
    if classes is not None:
        priced = priced_for(table, classes)
        if said := said_of(table, priced, classes):
            progress(Note(said))
        table = priced
    archs = fresh_archs(covered_space(table, classes), table, count, seed)
    specs = {model_id(arch.keys()): variant.export_spec(arch.keys()) for arch in archs}
    with resolve(device, access) as there, held(there):
        measurement, run = measure_beside(
            there,
            variant,
            table,
            specs,
            budget_s=budget_s,
            seed=seed,
            reuse=reuse,
            workers=workers,
            progress=progress,
        )
    compared = compare(table.latency_model, archs, measurement, table.meta.reference_ms)
    validation = summarise(str(ref), device, table, compared, measurement)
    path = run.folder / "validation.json"
    validation.save(path)
    run.finish(str(path))
    return validation


def _by_its_runtime(device: str, variant: Variant, access: Access) -> Access:
    """Access by the one agent that calls this machine's Core ML, where the LUT is of that; as it is elsewhere."""
    here = device == "host" and variant.runtime == "coreml"
    return replace(access, agent=core_ml_agent()) if here else access


def _unlike(ref: LutRef, lut: Lut) -> str:
    if lut.meta.fixed_performance:
        return (
            f"note: {ref} was measured in fixed performance mode, which slows a phone down; measure with "
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
        f"{space.name} has only {len(fresh)} architectures that the LUT has not seen; ask for fewer"
    )
