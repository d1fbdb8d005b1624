"""A profile as one file, which an agent runs without a computer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_writable
from luts.format.store import LutStore, lut_store
from orchestrator.bundle.archive import BundledPlan, DeviceKind, agent_policy, write_bundle
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.replay import make_script
from orchestrator.plan.plan import Policy
from orchestrator.tasks.exported_plan import export_plan
from orchestrator.tasks.plan import PlanChoice, choose_plan
from orchestrator.tasks.profiled_lut import exporter_version, subject_of
from orchestrator.tasks.progress import Note, Progress, silent

KINDS: tuple[DeviceKind, ...] = ("android", "iphone", "linux")


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written: `digest` tells it from all others, `batches` are run at most."""

    path: Path
    digest: str
    device_kind: str
    variant: str
    models: int
    batches: int
    size_bytes: int


def variant_for(
    kind: str,
    runtime: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cores: str = "",
) -> Variant:
    """How models run on such a device; what is None as with `bench profile`, threads as the agent takes them.

    Raises:
        UsageError: there is no such kind, or no such variant on it.
    """
    if kind not in KINDS:
        raise UsageError(f"--device-kind {kind!r}: expected {', '.join(KINDS)}")
    runtime = runtime or ("coreml" if kind == "iphone" else "executorch")
    if runtime == "coreml" and kind != "iphone":
        raise UsageError(f"--runtime coreml: Core ML is Apple's; leave --runtime out for {kind}")
    if runtime == "coreml" and threads is not None:
        raise UsageError("--threads is for --runtime executorch; Core ML chooses its own")
    target = backend or ("all" if runtime == "coreml" else "xnnpack")
    return Variant(runtime, target, precision or "", threads or 0, cores)


def bundle(
    space: str,
    kind: DeviceKind,
    output: Path,
    variant: Variant | None = None,
    choice: PlanChoice | None = None,
    *,
    budget_s: float = 900.0,
    pace_us: int = 0,
    policy: Policy | None = None,
    store: LutStore | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Bundled:
    """Write a profile of a space as a bundle.

    Args:
        space: Name of the space.
        kind: Of the device that it is for.
        output: The file.
        variant: How models run; that of `variant_for`.
        choice: What the plan covers and how large it is.
        budget_s: For which the plan is sized, and after which the device begins no further pass.
        pace_us: Microseconds between the starts of calls; back to back by default.
        policy: Of the measurement; the usual one, as an agent carries it out alone.
        store: Where a LUT is found that `choice` names.
        workers: Exporting processes; all cores by default.
        progress: Told of every export.

    Raises:
        UsageError: a space, variant or plan that there is not.
        BlocktimeError: too few models can be exported, or the file can't be written.
    """
    variant = variant or variant_for(kind)
    check_writable(output)
    policy = policy or agent_policy(Policy.of(variant.is_simulated, pace_us=pace_us))
    plan, expectation = choose_plan(space, choice or PlanChoice(), policy, budget_s, store or lut_store())
    progress(Note(f"{len(plan.models)} models for {len(plan.covered_keys())} blocks of {space}"))
    exported = export_plan(plan, variant, expectation, workers, progress)
    subject: ModelSet = subject_of(exported.plan, exported.files)
    script = make_script(subject, variant, policy, budget_s)
    planned = BundledPlan(
        plan=exported.plan,
        variant=variant.name,
        policy=policy,
        artifacts={name: file.sha256 for name, file in exported.files.items()},
        unexported=dict(exported.unexported),
        exporter=exporter_version(variant),
        batches=len(script.batches),
    )
    models = {file.sha256: file for file in exported.files.values()}
    digest = write_bundle(output, kind, planned.to_bytes(), script, models)
    size_bytes = output.stat().st_size
    return Bundled(output, digest, kind, variant.name, len(models), len(script.batches), size_bytes)
