"""Journals of bundles, sent back by whoever ran them, as LUTs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import check_folder, storage_error
from luts.format.lut import Lut
from luts.format.store import LutStore, lut_store
from orchestrator.bundle.archive import PLAN, BundledPlan, device_label, parse_manifest
from orchestrator.bundle.journal import BatchEnd, BundleEnd, BundleHeader, BundleRecord, read_journal
from orchestrator.devices.common.registry import phone_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.journal.runs import Run, runs_root
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.replay import Replay
from orchestrator.measure.session import Measurement, default_threads
from orchestrator.plan.plan import Policy
from orchestrator.tasks.profiled_lut import lut_of, run_label
from orchestrator.wire.client import ModelFile
from search.spaces import get_space

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
class _Waiting:
    """A journal that can be imported, and where to."""

    journal: Path
    planned: BundledPlan
    replay: Replay
    device: str
    run: Run


def import_journals(
    journals: Sequence[Path], *, name: str | None = None, store: LutStore | None = None
) -> list[Imported]:
    """Make a LUT of each journal; nothing is written before all of them were read.

    Args:
        journals: Files that agents left, of one or of several bundles.
        name: Of the device in the LUT, where its own would not tell it apart; of one journal alone.
        store: Where the LUTs are written; the user's by default.

    Raises:
        InvalidArtifactError: a journal was changed, is of another version, or of a device whose LUT of this bundle
            there is already.
        MeasurementRejectedError: a journal is not finished, or too much of it does not count.
        UsageError: one name for several journals.
    """
    if name is not None and len(journals) > 1:
        raise UsageError("--name is of one device; import the others by themselves")
    store = store or lut_store()
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    waiting: list[_Waiting] = []
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


def _read(journal: Path, name: str | None) -> _Waiting:
    digest, records = read_journal(journal)
    planned = _plan(journal, records)
    asked = Variant.parse(planned.variant)
    files = {model: ModelFile(journal, sha256) for model, sha256 in planned.artifacts.items()}
    plan = planned.plan
    subject = ModelSet(files, plan.reference.model_id, plan.digest, plan.seed)
    replay = Replay(name or "the device", journal, records, subject, asked, planned.policy)
    if not isinstance(records[-1], BundleEnd):
        begun = sum(isinstance(record, BatchEnd) and not record.again for record in records)
        raise MeasurementRejectedError(
            f"{journal}: the bundle is not finished ({begun} batches of at most {planned.batches}); "
            "run it again with this journal to resume",
            code="unfinished_bundle",
        )
    hello = replay.hello
    variant = asked if asked.threads or asked.cores else default_threads(hello, asked)
    phone = phone_of(hello.device.model)
    device = name or (phone.name if phone else device_label(hello.device.model))
    replay = Replay(device, journal, records, subject, variant, planned.policy)
    label = f"{run_label(device, plan, variant, planned.policy.pace_us)}-bundle-{digest[:8]}"
    return _Waiting(journal, planned, replay, device, Run(runs_root() / label))


def _plan(journal: Path, records: Sequence[BundleRecord]) -> BundledPlan:
    opening = records[0]
    if not isinstance(opening, BundleHeader):
        raise InvalidArtifactError(
            f"{journal} does not begin with its bundle; take the file as the agent left it"
        )
    manifest = parse_manifest(opening.manifest.encode(), journal)
    if manifest.files[PLAN].sha256 != _digest(opening.plan) or opening.bundle != _digest(opening.manifest):
        raise InvalidArtifactError(
            f"{journal}: its plan is not its bundle's; take the file as the agent left it"
        )
    planned = BundledPlan.parse(opening.plan, journal)
    space = get_space(planned.plan.space)
    if planned.plan.space_digest not in space.digests:
        raise InvalidArtifactError(
            f"{journal}: {space.name} is not the space that it was when the bundle was made; make the bundle again"
        )
    return planned


def _import(one: _Waiting, store: LutStore) -> Imported:
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
