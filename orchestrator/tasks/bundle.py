"""A profile as a file that an agent runs without a computer, and the LUTs of the journals that come back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import check_writable, exclusive_folder, storage_errors
from luts.format.lut import Lut
from luts.format.operators import OPERATORS
from luts.format.store import LutStore
from luts.format.table import Facts
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
from orchestrator.export.artifacts.spec import HOST_RUNTIMES, Variant
from orchestrator.journal.log import read_records
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.journal.runs import Run, runs_root
from orchestrator.measure.replay import Replay, make_script
from orchestrator.measure.session import Measurement, default_threads
from orchestrator.plan.plan import Policy
from orchestrator.tasks.exported_plan import ExportedPlan, export_plan, exporter_version
from orchestrator.tasks.luts import provenance
from orchestrator.tasks.options import (
    REQUIRED,
    ExportOptions,
    StoreOptions,
    argument,
    budget,
    output_option,
    pace_option,
    target_option,
)
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.plan import SpaceOptions, choose_plan
from orchestrator.tasks.profile import open_lut_folder, run_label, why_it_ended
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import VariantOptions
from orchestrator.wire.client import ModelFile
from search.spaces import get_space

KINDS: tuple[DeviceKind, ...] = ("android", "iphone", "linux")


def variant_for(kind: str, how: VariantOptions) -> Variant:
    """Return how models run on a kind of device; what is None has the same defaults as `bench profile`.

    Raises:
        UsageError: an unknown kind, or a variant that it does not have.
    """
    if kind not in KINDS:
        raise UsageError(f"--device-kind {kind!r}: expected {', '.join(KINDS)}", code="unknown_device_kind")
    if how.runtime == "coreml" and kind != "iphone":
        raise UsageError(
            f"--runtime coreml: Core ML is Apple's; leave --runtime out for {kind}", code="coreml_elsewhere"
        )
    if how.runtime in HOST_RUNTIMES:
        raise UsageError(
            f"--runtime {how.runtime}: no agent of a bundle has it; leave --runtime out", code="host_runtime"
        )
    return how.variant_for(kind)


@dataclass(frozen=True, kw_only=True)
class BundleCommand(SpaceOptions, ExportOptions, StoreOptions):
    """Write a profile as one file that a device runs without a computer.

    The device leaves a journal, which bench import turns into a LUT.
    """

    kind: str = target_option(
        REQUIRED,
        "android, iphone or linux: whose app or agent runs it.",
        flag="--device-kind",
        metavar="KIND",
    )
    output: Path = output_option(REQUIRED, "File of the bundle.", flag="--output -o", metavar="FILE")
    variant: VariantOptions = field(default_factory=VariantOptions)
    budget_s: float = budget("15m")
    pace_us: int = pace_option()
    fixed_variant: Variant | None = None
    """The variant itself, for programs."""
    policy: Policy | None = None
    """The policy of the measurement, for programs; by default the usual one of an agent alone."""


@dataclass(frozen=True, kw_only=True)
class ImportCommand(StoreOptions):
    """Make a LUT of the journal that a device left when it ran a bundle, with the checks of a live run."""

    journals: tuple[Path, ...] = argument(
        REQUIRED, "Files that devices left, FILE.journal.jsonl.", metavar="JOURNAL"
    )
    name: str | None = output_option(
        None, "Device name to record in the LUT.", parse=parse_name, shown="the device's own", metavar="NAME"
    )


def bundle(options: BundleCommand, progress: Progress = silent) -> Facts:
    """Write a profile of a space as a bundle, and return facts about it; `batches at most` are run.

    Raises:
        UsageError: an unknown space, variant or plan.
        BlocktimeError: too few models can be exported, or the file can't be written.
    """
    output, kind = options.output, options.kind
    variant = options.fixed_variant or variant_for(kind, options.variant)
    check_writable(output)
    policy = options.policy or agent_policy(Policy.of(variant.is_simulated, pace_us=options.pace_us))
    plan, expectation = choose_plan(options, policy, options.budget_s, options.open_store(progress))
    blocks = len(plan.covered_keys()) or "the"
    progress(Note(f"{len(plan.models)} models for {blocks} blocks of {options.space}"))
    exported = export_plan(plan, variant, expectation, options.workers, progress)
    script = make_script(exported.model_set, variant, policy, options.budget_s)
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
    facts = {
        "digest": digest,
        "device kind": kind,
        "variant": variant.name,
        "models": len(models),
        "batches at most": len(script.batches),
        "MiB": round(output.stat().st_size / 2**20, 1),
    }
    return Facts(str(output), facts)


AGENT_JOURNAL = "bundle.jsonl"
"""In the run's folder: the file as the agent left it."""


@dataclass(frozen=True)
class Imported:
    """A LUT of a bundle's journal."""

    path: Path
    lut: Lut
    measurement: Measurement

    def to_dict(self) -> dict[str, Any]:
        """Return path and provenance."""
        return {"path": str(self.path), "meta": self.lut.meta.model_dump()}

    def report(self) -> Iterator[Facts]:
        """Yield the provenance."""
        yield Facts(str(self.path), provenance(self.lut))


@dataclass(frozen=True)
class _Pending:
    """A journal that can be imported, and its run."""

    journal: Path
    planned: BundledPlan
    models: ExportedPlan
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
        FolderBusyError: another process imports the same journal.
    """
    journals, name = options.journals, options.name
    if name is not None and len(journals) > 1:
        raise UsageError("--name is for one journal; import the others separately", code="name_for_several")
    store = open_lut_folder(options, progress)
    waiting: list[_Pending] = []
    with ExitStack() as folders:
        for journal in journals:
            one = _read(journal, name)
            twin = next((other for other in waiting if other.run == one.run), None)
            if twin:
                raise _twice(journal, one.device, f"as {twin.journal}")
            folders.enter_context(exclusive_folder(one.run.folder))
            if one.run.result is not None:
                raise _twice(journal, one.device, f"imported as {one.run.result}")
            waiting.append(one)
        return [_import(one, store, progress) for one in waiting]


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
    models = ExportedPlan(planned.plan, files, planned.unexported)
    replay = Replay(name or "the device", journal, records, models.model_set, asked, planned.policy)
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
    replay = Replay(device, journal, records, models.model_set, variant, planned.policy)
    label = f"{run_label(device, planned.plan, variant, planned.policy.pace_us)}-bundle-{digest[:8]}"
    return _Pending(journal, planned, models, replay, device, Run(runs_root() / label))


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
    space = planned.plan.space
    if space != OPERATORS and planned.plan.space_digest not in get_space(space).digests:
        raise InvalidArtifactError(
            f"{journal}: {space} is not the space that it was when the bundle was made; make the bundle again",
            code="changed_space",
        )
    return planned


def _import(one: _Pending, store: LutStore, progress: Progress) -> Imported:
    run = one.run
    begun = read_records(run.journal) if run.journal.exists() else []  # by an import that was killed
    created = begun[0]["created"] if begun else datetime.now(UTC).isoformat(timespec="seconds")
    with storage_errors(f"cannot write {run.folder}", "set BLOCKTIME_RUNS to another folder"):
        run.journal.unlink(missing_ok=True)
        shutil.copyfile(one.journal, run.folder / AGENT_JOURNAL)
    measured = one.replay.measure(run.journal, created)
    path = store.write_once(one.models.lut(measured, one.device, one.planned.exporter))
    run.finish(str(path))
    for line in (
        f"{one.journal}: {measured.batches_kept} batches kept, {measured.batches_rejected} do not count",
        why_it_ended(measured, one.planned.policy),
        *(f"left out {model}: {reason}" for model, reason in measured.failures.items()),
    ):
        progress(Note(line))
    return Imported(path, store.load(path), measured)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
