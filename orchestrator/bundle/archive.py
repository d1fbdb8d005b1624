"""A bundle as a file: an uncompressed tar of manifest, plan, script and models, each with its digest.

PROTOCOL.md, "Bundles", defines the format; the agents in Kotlin and Swift read and run it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, ValidationError, field_validator

from luts.format.errors import InvalidArtifactError, first_problem
from luts.format.files import check_writable, storage_error
from luts.format.schema import Name, Sha256, Value
from orchestrator.plan.plan import Plan, Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.frames import MAX_PAYLOAD_BYTES
from orchestrator.wire.messages import (
    MAX_HANDLES,
    MAX_PACE_US,
    MAX_VISITS,
    MAX_WARMUP,
    MAX_WARMUP_MS,
    PROTOCOL_VERSION,
    OptionValue,
)

SlotIndex = Annotated[int, Field(ge=0, lt=MAX_HANDLES)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
RoundOrders = Annotated[
    list[Annotated[list[SlotIndex], Field(max_length=MAX_VISITS)]], Field(max_length=MAX_VISITS)
]
"""Slots in the order of their calls, round by round."""


class ScriptBatch(Value):
    """Models that are loaded together, and the rounds that are run of them.

    Attributes:
        pass_index: Pass over all models that the batch belongs to.
        group: Number of the batch in its pass.
        slots: Digests of its models; slots 0 and 1 are the reference.
        loading: Slots in the order of their loads.
        orders: For each run request, its rounds.
        placement: Whether load requests ask for the placement of operations.
    """

    pass_index: Annotated[int, Field(ge=0, le=1000)]
    group: Annotated[int, Field(ge=0, le=100_000)]
    slots: Annotated[list[Sha256], Field(min_length=2, max_length=MAX_HANDLES)]
    loading: Annotated[list[SlotIndex], Field(max_length=MAX_HANDLES)]
    orders: Annotated[list[RoundOrders], Field(min_length=1, max_length=1000)]
    placement: bool


class StoppingRule(Value):
    """When an agent may stop before the end of the script.

    Attributes:
        min_rounds: Fewest rounds of a batch. It then ends after the first run by which...
        load_se: ...the relative standard error of each model's ratio to the reference is at most this.
        min_passes: Fewest passes. The bundle then ends after the first pass by which...
        half_width: ...each model's relative 95 % interval is at most this wide to either side, or...
        budget_s: ...its batches took longer than this, in seconds.
    """

    min_rounds: Annotated[int, Field(ge=1, le=MAX_VISITS)]
    load_se: Annotated[float, Field(ge=0, le=1)]
    min_passes: Annotated[int, Field(ge=1, le=1000)]
    half_width: Annotated[float, Field(ge=0, le=1)]
    budget_s: Annotated[float, Field(ge=0, le=1e7)]


class AgentRules(Value):
    """What an agent decides by itself.

    Attributes:
        attempts: Most starts of a batch whose device gets hot or whose agent is killed.
        deaths: Times that an agent may be killed while it loads a model; the model is excluded then.
        poll_s: Seconds between two checks of a device that is not ready or too warm.
        wait_s: Longest wait for a device to be ready; the agent then stops, and resumes when started again.
        cool_s: Longest wait for a device to cool; the batch then starts anyway.
        hot_headroom: A batch is repeated if the thermal headroom reaches this, or the state `serious`.
        cool_headroom: A batch starts if the headroom is below this and the state is `nominal`.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    deaths: Annotated[int, Field(ge=1, le=100)] = 2
    poll_s: Seconds = 10.0
    wait_s: Seconds = 900.0
    cool_s: Seconds = 300.0
    hot_headroom: float
    cool_headroom: float


class LoadFields(Value):
    """Fields of every load request."""

    runtime: Annotated[str, Field(max_length=64)]
    options: dict[str, OptionValue]


class RunFields(Value):
    """Fields of every run request; only the first one after the loads has a `warmup`."""

    warmup: Annotated[int, Field(ge=0, le=MAX_WARMUP)]
    warmup_ms: Annotated[int, Field(ge=0, le=MAX_WARMUP_MS)]
    pace_us: Annotated[int, Field(ge=0, le=MAX_PACE_US)]


class Script(Value):
    """`script.json` of a bundle."""

    rules: AgentRules
    load: LoadFields
    run: RunFields
    batches: Annotated[list[ScriptBatch], Field(min_length=1, max_length=100_000)]
    stop: StoppingRule | None = None


FORMAT: Literal[1] = 1
MAX_TEXT_BYTES = 8 << 20
"""Largest manifest, plan or script: a phone reads them whole. A plan of 1,000 models takes under 2 MiB."""
MAX_FILES = 4096

MANIFEST, PLAN, SCRIPT = "manifest.json", "plan.json", "script.json"
MODELS = "models/"

DeviceKind = Literal["android", "iphone", "linux"]
"""Whose agent runs a bundle; `linux`: the Kotlin or Swift agent as a program."""


class FileInfo(Value):
    """Size and digest of a file in a bundle."""

    bytes: Annotated[int, Field(ge=1, le=MAX_PAYLOAD_BYTES)]
    sha256: Sha256


class Manifest(Value):
    """`manifest.json`; its sha256 is the bundle's digest."""

    format: Literal[1]
    protocol: int
    device_kind: DeviceKind
    files: Annotated[dict[str, FileInfo], Field(max_length=MAX_FILES)]

    @field_validator("files")
    @classmethod
    def _complete(cls, files: dict[str, FileInfo]) -> dict[str, FileInfo]:
        if not {PLAN, SCRIPT} <= files.keys():
            raise ValueError(f"{PLAN} or {SCRIPT} is missing")
        return files


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Return a manifest.

    Raises:
        InvalidArtifactError: It is damaged, or of another format or protocol version; names `path`.
    """
    remedy = "make it again with bench bundle"
    try:
        document = json.loads(raw)
        version, protocol = document["format"], document["protocol"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArtifactError(
            f"{path} is not a bundle of bench: its manifest can't be read", code="not_a_bundle"
        ) from None
    if version != FORMAT:
        raise InvalidArtifactError(
            f"{path} is a bundle of format {version}, not {FORMAT}; {remedy}", code="other_version"
        )
    if protocol != PROTOCOL_VERSION:
        raise InvalidArtifactError(
            f"{path} is a bundle for protocol {protocol}, and this is {PROTOCOL_VERSION}; "
            "use the same version of bundle, agent and bench",
            code="other_version",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: damaged manifest ({first_problem(error)}); {remedy}", code="invalid_file"
        ) from None


def write_bundle(
    path: Path, kind: DeviceKind, plan: bytes, script: Script, models: Mapping[str, ModelFile]
) -> str:
    """Write a bundle completely or not at all, and return its digest.

    Args:
        path: The file.
        kind: Kind of device that runs it.
        plan: What `bench import` needs; the agent copies it into the journal.
        script: What the agent runs.
        models: Model files by digest.

    Raises:
        UsageError: `path` is a folder, or inside a file.
        StorageError: The file cannot be written, or a model cannot be read.
        InvalidArtifactError: Plan or script are too large.
    """
    check_writable(path)
    texts = {PLAN: plan, SCRIPT: script.model_dump_json().encode()}
    files = {name: FileInfo(bytes=len(raw), sha256=_digest(raw)) for name, raw in texts.items()}
    for digest, model in sorted(models.items()):
        files[MODELS + digest] = FileInfo(bytes=model.path.stat().st_size, sha256=digest)
    manifest = Manifest(format=FORMAT, protocol=PROTOCOL_VERSION, device_kind=kind, files=files)
    raw = manifest.model_dump_json().encode()
    for name, text in ((MANIFEST, raw), *texts.items()):
        if len(text) > MAX_TEXT_BYTES:
            raise InvalidArtifactError(
                f"{path}: {name} has over {MAX_TEXT_BYTES >> 20} MiB; plan fewer models",
                code="file_too_large",
            )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, text in ((MANIFEST, raw), *texts.items()):
                _add(tar, name, len(text), io.BytesIO(text))
            for digest, model in sorted(models.items()):
                with model.path.open("rb") as file:
                    _add(tar, MODELS + digest, files[MODELS + digest].bytes, file)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return _digest(raw)


def _add(tar: tarfile.TarFile, name: str, size: int, content: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


SPARE_PASSES = 1
"""Passes beyond those of a live run, for batches that do not count: nobody judges them while one can be
repeated.
"""


class BundledPlan(Value):
    """`plan.json` of a bundle.

    Attributes:
        plan: The models; `artifacts` uses their `model_id`.
        variant: How they run; without threads the agent's default.
        policy: How they are measured.
        artifacts: Digests of the model files.
        unexported: Models that could not be exported, with the reason.
        exporter: The tools that exported the files.
        batches: Batches of the script; those of later passes may not be needed.
    """

    plan: Plan
    variant: str
    policy: Policy
    artifacts: dict[str, Sha256]
    unexported: dict[str, str]
    exporter: str
    batches: int

    def to_bytes(self) -> bytes:
        """Return the content of `plan.json`."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, text: str, path: Path) -> BundledPlan:
        """Return the plan of a journal; raises InvalidArtifactError, which names `path`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidArtifactError(
                f"{path}: its plan is of another version of bench ({first_problem(error)}); make it again",
                code="other_version",
            ) from None


def agent_policy(policy: Policy) -> Policy:
    """Return a policy for an agent alone: without a self-test, with a spare pass."""
    fewest = policy.min_passes + SPARE_PASSES
    return replace(policy, self_test=False, min_passes=fewest, max_passes=max(policy.max_passes, fewest))


def device_label(model: str) -> Name:
    """Return a name for an unregistered device: `pixel-42-pro` for `Pixel 42 Pro`."""
    label = "".join(character if character.isascii() and character.isalnum() else "-" for character in model)
    return "-".join(part for part in label.lower().split("-") if part)[:40] or "unknown"
