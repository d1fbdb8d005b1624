"""Model files measured side by side in one run, which goes on where it was cut off."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from orchestrator.devices.common.device import Device
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.readiness import ReferenceFailedError
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import model_files
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.wire.client import ModelFile

REFERENCE = "reference"
"""Journal id of a LUT's reference: one of the measured models may have the same blocks."""


def measure_files(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    reference: str,
    *,
    budget_s: float,
    seed: int,
    self_test: bool = True,
    pace_us: int = 0,
    calls: int = 0,
    reuse: bool = False,
    progress: Progress = silent,
) -> tuple[Measurement, Run]:
    """Measure models by name against the one named `reference`, going on with an open run of the same models.

    What is measured goes by `journal_id` of the names. Another pace, or no self-test, makes it another run.
    `calls` are wanted of each within the budget.
    """
    ids = {name: journal_id(name) for name in files}
    how = ([f"pace {pace_us} us"] if pace_us else []) + ([] if self_test else ["no self-test"])
    digest = hashlib.sha256(" ".join([*(file.sha256 for file in files.values()), *how]).encode()).hexdigest()
    subject = ModelSet({ids[name]: file for name, file in files.items()}, ids[reference], digest, seed)
    run = find_run(runs_root(), f"measure-{device.name}-{variant.name}-{digest[:8]}", reuse=reuse)
    run.name_models({identifier: name for name, identifier in ids.items()})
    policy = replace(Policy.of(variant.is_simulated, self_test, pace_us), calls=calls)
    measured = measure(
        device,
        variant,
        subject,
        run.journal,
        policy,
        EngineOptions(budget_s=budget_s, progress=steps(progress)),
        usage_of=list(subject.files) if calls else (),
    )
    return measured, run


@dataclass(frozen=True)
class SideBySide:
    """Models that were measured together: the `reference`'s name, and why some were left out, by name."""

    measurement: Measurement
    run: Run
    reference: str
    failures: Mapping[str, str]


def measure_what_can_be(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    *,
    budget_s: float,
    seed: int,
    self_test: bool = True,
    pace_us: int = 0,
    calls: int = 0,
    progress: Progress = silent,
) -> SideBySide:
    """`measure_files` with the first model that the device can run as the reference.

    Raises:
        ReferenceFailedError: it can run none of them.
    """
    failures: dict[str, str] = {}
    for reference in files:
        left = {name: file for name, file in files.items() if name not in failures}
        try:
            measurement, run = measure_files(
                device,
                variant,
                left,
                reference,
                budget_s=budget_s,
                seed=seed,
                self_test=self_test,
                pace_us=pace_us,
                calls=calls,
                progress=progress,
            )
        except ReferenceFailedError as error:
            if len(left) == 1:
                raise
            failures[reference] = error.reason
            progress(Note(f"{reference} can't be measured: {error.reason}; the next one is the reference"))
            continue
        refused = {name: measurement.failures.get(journal_id(name), "") for name in left}
        failures |= {name: reason for name, reason in refused.items() if reason}
        return SideBySide(measurement, run, reference, failures)
    raise UsageError("nothing to measure")


def measure_beside(
    device: Device,
    variant: Variant,
    lut: Lut,
    models: Mapping[str, ExportSpec],
    *,
    budget_s: float,
    seed: int,
    reuse: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[Measurement, Run]:
    """Measure models, by model id, beside a LUT's reference: both speak of the same milliseconds then.

    They are called at the LUT's pace, and the device is tested first unless it was not for the LUT.
    """
    reference = lut.reference
    specs = {REFERENCE: variant.export_spec(reference.blocks), **models}
    files = model_files(variant, specs, workers, progress)
    if files[REFERENCE].sha256 != reference.artifact_sha256:
        text = "note: this version exports the LUT's reference to other bytes than the LUT was measured with"
        progress(Note(text))
    measurement, run = measure_files(
        device,
        variant,
        files,
        REFERENCE,
        budget_s=budget_s,
        seed=seed,
        self_test=bool(lut.meta.policy.get("self_test", True)),
        pace_us=int(lut.meta.policy.get("pace_us", 0)),
        reuse=reuse,
        progress=progress,
    )
    for name, reason in measurement.failures.items():
        raise InvalidArtifactError(f"{name} can't be measured: {reason}")
    return measurement, run


def journal_id(name: str) -> str:
    """Names of people's choosing, paths among them, as ids of a journal; model ids stay as they are."""
    if name == REFERENCE or (len(name) == 12 and all(c in "0123456789abcdef" for c in name)):
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:12]
