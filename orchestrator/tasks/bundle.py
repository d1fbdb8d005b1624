"""A profile as a file that an agent runs without a computer, and the LUTs of the journals that come back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import check_folder, check_writable, storage_error
from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.bundle.archive import (
    PLAN,
    BundledPlan,
    DeviceKind,
    agent_policy,
    device_label,
    parse_manifest,
    write_bundle,
)
from orchestrator.bundle.journal import BatchEnd, BundleEnd, BundleHeader, BundleRecord, read_journal
from orchestrator.devices.common.registry import phone_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.journal.runs import Run, runs_root
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.replay import Replay, make_script
from orchestrator.measure.session import Measurement, default_threads
from orchestrator.plan.plan import Policy
from orchestrator.tasks.exported_plan import export_plan
from orchestrator.tasks.options import (
    NETWORKS,
    OUTPUT,
    REQUIRED,
    TARGET,
    ExportOptions,
    StoreOptions,
    argument,
    budget,
    option,
    pace_option,
)
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.plan import DEFAULT_SPACE, PlanOptions, choose_plan
from orchestrator.tasks.profiled_lut import exporter_version, lut_of, run_label, subject_of
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import VariantOptions
from orchestrator.wire.client import ModelFile
from search.spaces import get_space

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
    """Return how models run on a kind of device; None means the same defaults as `bench profile`.

    Raises:
        UsageError: an unknown kind, or a variant that it does not have.
    """
    if kind not in KINDS:
        raise UsageError(f"--device-kind {kind!r}: expected {', '.join(KINDS)}", code="unknown_device_kind")
    runtime = runtime or ("coreml" if kind == "iphone" else "executorch")
    if runtime == "coreml" and kind != "iphone":
        raise UsageError(
            f"--runtime coreml: Core ML is Apple's; leave --runtime out for {kind}", code="coreml_elsewhere"
        )
    if runtime == "coreml" and threads is not None:
        raise UsageError(
            "--threads is for --runtime executorch; Core ML chooses its own", code="coreml_threads"
        )
    target = backend or ("all" if runtime == "coreml" else "xnnpack")
    return Variant(runtime, target, precision or "", threads or 0, cores)


@dataclass(frozen=True, kw_only=True)
class BundleCommand(ExportOptions, StoreOptions):
    """Options of `bench bundle`.

    Attributes:
        kind: Kind of device that the bundle is for, of `KINDS`.
        output: File of the bundle.
        space: Name of the space.
        variant: How models run.
        plan: What is measured.
        budget_s: Seconds that the plan is sized for, and after which the device starts no new pass.
        pace_us: Microseconds between the starts of calls; 0 for back to back.
        fixed_variant: The variant itself, for programs.
        policy: The policy of the measurement, for programs; by default the usual one of an agent alone.
    """

    kind: str = option(
        REQUIRED,
        "android, iphone or linux: whose app or agent runs it.",
        flag="--device-kind",
        metavar="KIND",
        panel=TARGET,
    )
    output: Path = option(REQUIRED, "File of the bundle.", flag="--output -o", metavar="FILE", panel=OUTPUT)
    space: str = option(DEFAULT_SPACE, "Search space to profile.", metavar="SPACE", panel=NETWORKS)
    variant: VariantOptions = field(default_factory=VariantOptions)
    plan: PlanOptions = field(default_factory=PlanOptions)
    budget_s: float = budget("15m")
    pace_us: int = pace_option()
    fixed_variant: Variant | None = None
    policy: Policy | None = None


@dataclass(frozen=True, kw_only=True)
class ImportCommand(StoreOptions):
    """Options of `bench import`.

    Attributes:
        journals: Files that agents left, of one or of several bundles.
        name: Device name to record in the LUT, for one journal; the device's own by default.
    """

    journals: tuple[Path, ...] = argument(
        REQUIRED, "Files that devices left, FILE.journal.jsonl.", metavar="JOURNAL"
    )
    name: str | None = option(
        None,
        "Device name to record in the LUT.",
        parse=parse_name,
        shown="the device's own",
        metavar="NAME",
        panel=OUTPUT,
    )


def bundle(options: BundleCommand, progress: Progress = silent) -> Bundled:
    """Write a profile of a space as a bundle.

    Raises:
        UsageError: an unknown space, variant or plan.
        BlocktimeError: too few models can be exported, or the file can't be written.
    """
    how, output, kind = options.variant, options.output, options.kind
    variant = options.fixed_variant or variant_for(
        kind, how.runtime, how.backend, how.precision, how.threads, how.cores
    )
    check_writable(output)
    policy = options.policy or agent_policy(Policy.of(variant.is_simulated, pace_us=options.pace_us))
    plan, expectation = choose_plan(
        options.space, options.plan, policy, options.budget_s, options.open_store(progress)
    )
    progress(Note(f"{len(plan.models)} models for {len(plan.covered_keys())} blocks of {options.space}"))
    exported = export_plan(plan, variant, expectation, options.workers, progress)
    subject: ModelSet = subject_of(exported.plan, exported.files)
    script = make_script(subject, variant, policy, options.budget_s)
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
    digest = write_bundle(output, cast(DeviceKind, kind), planned.to_bytes(), script, models)
    size_bytes = output.stat().st_size
    return Bundled(output, digest, kind, variant.name, len(models), len(script.batches), size_bytes)


AGENT_JOURNAL = "bundle.jsonl"
"""In the run's folder: the file as the agent left it."""


@dataclass(frozen=True)
class Imported:
    """A LUT of a bundle's journal, and the policy that its agent kept to."""

    path: Path
    lut: Lut
    run: Path
    measurement: Measurement
    journal: Path
    policy: Policy


@dataclass(frozen=True)
class _Pending:
    """A journal that can be imported, and its run."""

    journal: Path
    planned: BundledPlan
    replay: Replay
    device: str
    run: Run


def import_journals(options: ImportCommand, progress: Progress = silent) -> list[Imported]:
    """Make a LUT of each journal; nothing is written before all of them were read.

    Raises:
        InvalidArtifactError: a journal was changed, is of another version, or its device already has a LUT of this
            bundle.
        MeasurementRejectedError: a journal is not finished, or too much of it does not count.
        UsageError: one name for several journals.
    """
    journals, name = options.journals, options.name
    if name is not None and len(journals) > 1:
        raise UsageError("--name is for one journal; import the others separately", code="name_for_several")
    store = options.open_store(progress, create=True)
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    waiting: list[_Pending] = []
    for journal in journals:
        one = _read(journal, name)
        twin = next((other for other in waiting if other.run == one.run), None)
        if twin:
            raise _twice(journal, one.device, f"as {twin.journal}")
        if one.run.result is not None:
            raise _twice(journal, one.device, f"imported as {one.run.result}")
        waiting.append(one)
    return [_import(one, store) for one in waiting]


def _twice(journal: Path, device: str, where: str) -> InvalidArtifactError:
    return InvalidArtifactError(
        f"{journal} is of the same bundle and device ({device}), {where}; for another unit give it a --name",
        code="already_imported",
    )


def _read(journal: Path, name: str | None) -> _Pending:
    digest, records = read_journal(journal)
    planned = _plan(journal, records)
    asked = Variant.parse(planned.variant)
    files = {model: ModelFile(journal, sha256) for model, sha256 in planned.artifacts.items()}
    plan = planned.plan
    subject = ModelSet(files, plan.reference.model_id, plan.digest, plan.seed)
    replay = Replay(name or "the device", journal, records, subject, asked, planned.policy)
    if not isinstance(records[-1], BundleEnd):
        done = sum(isinstance(record, BatchEnd) and not record.again for record in records)
        raise MeasurementRejectedError(
            f"{journal}: the bundle is not finished ({done} batches of at most {planned.batches}); "
            "run it again with this journal to resume",
            code="unfinished_bundle",
        )
    hello = replay.hello
    variant = asked if asked.threads or asked.cores else default_threads(hello, asked)
    phone = phone_of(hello.device.model)
    device = name or (phone.name if phone else device_label(hello.device.model))
    replay = Replay(device, journal, records, subject, variant, planned.policy)
    label = f"{run_label(device, plan, variant, planned.policy.pace_us)}-bundle-{digest[:8]}"
    return _Pending(journal, planned, replay, device, Run(runs_root() / label))


def _plan(journal: Path, records: Sequence[BundleRecord]) -> BundledPlan:
    opening = records[0]
    if not isinstance(opening, BundleHeader):
        raise InvalidArtifactError(
            f"{journal} does not begin with its bundle; take the file as the agent left it",
            code="changed_journal",
        )
    manifest = parse_manifest(opening.manifest.encode(), journal)
    if manifest.files[PLAN].sha256 != _digest(opening.plan) or opening.bundle != _digest(opening.manifest):
        raise InvalidArtifactError(
            f"{journal}: its plan is not its bundle's; take the file as the agent left it",
            code="changed_journal",
        )
    planned = BundledPlan.parse(opening.plan, journal)
    space = get_space(planned.plan.space)
    if planned.plan.space_digest not in space.digests:
        raise InvalidArtifactError(
            f"{journal}: {space.name} is not the space that it was when the bundle was made; make the bundle again",
            code="changed_space",
        )
    return planned


def _import(one: _Pending, store: LutStore) -> Imported:
    plan, run = one.planned.plan, one.run
    try:
        run.journal.unlink(missing_ok=True)
        run.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.journal, run.folder / AGENT_JOURNAL)
    except OSError as error:
        raise storage_error(
            f"cannot write {run.folder}", error, "set BLOCKTIME_RUNS to another folder"
        ) from error
    measurement = one.replay.measure(run.journal, datetime.now(UTC).isoformat(timespec="seconds"))
    files = {model: ModelFile(one.journal, sha256) for model, sha256 in one.planned.artifacts.items()}
    lut = lut_of(plan, files, measurement, one.device, one.planned.unexported, one.planned.exporter)
    path = store.write(lut)
    run.finish(str(path))
    return Imported(path, store.load(path), run.folder, measurement, one.journal, one.planned.policy)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
