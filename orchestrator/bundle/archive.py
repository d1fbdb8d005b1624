"""A bundle as a file: an uncompressed tar of manifest, plan, script and models, each with its digest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, ValidationError

from luts.format.errors import InvalidArtifactError, first_problem
from luts.format.files import check_writable, storage_error
from luts.format.schema import Sha256, Value
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

Slot = Annotated[int, Field(ge=0, lt=MAX_HANDLES)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Order = Annotated[list[Annotated[list[Slot], Field(max_length=MAX_VISITS)]], Field(max_length=MAX_VISITS)]


class ScriptBatch(Value):
    """Fresh loads side by side, and what is run of them.

    Attributes:
        pass_index: Which pass over all models it belongs to...
        group: ...and which batch of that.
        slots: Digests of its models; the reference is in slots 0 and 1.
        loading: Slots in the order of their loads.
        orders: Of each run the rounds, of each round the slots that it visits.
        placement: Whether replies to loads are to have it.
    """

    pass_index: Annotated[int, Field(ge=0, le=1000)]
    group: Annotated[int, Field(ge=0, le=100_000)]
    slots: Annotated[list[Sha256], Field(min_length=2, max_length=MAX_HANDLES)]
    loading: Annotated[list[Slot], Field(max_length=MAX_HANDLES)]
    orders: Annotated[list[Order], Field(min_length=1, max_length=1000)]
    placement: bool


FIRST_MODEL = 2
"""The reference is in the slots before this one."""


class Stop(Value):
    """When there is enough; without it all rounds of all batches are run.

    Attributes:
        min_rounds: Of a batch, which ends behind a run as soon as each model's ratio to the reference...
        load_se: ...has at most this relative standard error.
        min_passes: Passes that are made in any case; the bundle ends behind one of the others as soon as...
        half_width: ...every model's relative 95 % interval is at most this wide to either side...
        budget_s: ...or its batches took longer than this.
    """

    min_rounds: Annotated[int, Field(ge=1, le=MAX_VISITS)]
    load_se: Annotated[float, Field(ge=0, le=1)]
    min_passes: Annotated[int, Field(ge=1, le=1000)]
    half_width: Annotated[float, Field(ge=0, le=1)]
    budget_s: Annotated[float, Field(ge=0, le=1e7)]


class Rules(Value):
    """What an agent decides by itself.

    Attributes:
        attempts: Times that a batch is begun at most, where the device gets hot in it or its agent is ended.
        deaths: Times that an agent may be ended while it loads a model, which is left out then.
        poll_s: Pause between two looks at a device that is not ready, or too warm...
        wait_s: ...for so long at most until it is ready, which ends the program, that can go on later...
        cool_s: ...and so long until it is cool, which a batch is begun without.
        hot_headroom: From this thermal headroom on, and from the state `serious` on, a batch is repeated...
        cool_headroom: ...and below it, in the state `nominal`, one is begun.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    deaths: Annotated[int, Field(ge=1, le=100)] = 2
    poll_s: Seconds = 10.0
    wait_s: Seconds = 900.0
    cool_s: Seconds = 300.0
    hot_headroom: float
    cool_headroom: float


class LoadFields(Value):
    """Fields of every `load`."""

    runtime: Annotated[str, Field(max_length=64)]
    options: dict[str, OptionValue]


class RunFields(Value):
    """Fields of every `run`; `warmup` of the first one after the loads, the others have none."""

    warmup: Annotated[int, Field(ge=0, le=MAX_WARMUP)]
    warmup_ms: Annotated[int, Field(ge=0, le=MAX_WARMUP_MS)]
    pace_us: Annotated[int, Field(ge=0, le=MAX_PACE_US)]


class Script(Value):
    """`script.json` of a bundle."""

    rules: Rules
    load: LoadFields
    run: RunFields
    batches: Annotated[list[ScriptBatch], Field(min_length=1, max_length=100_000)]
    stop: Stop | None = None


FORMAT: Literal[1] = 1
MAX_TEXT_BYTES = 8 << 20
"""Of manifest, plan and script each: a phone reads them whole. A plan of 1,000 models takes under 2 MiB."""
MAX_FILES = 4096

MANIFEST, PLAN, SCRIPT = "manifest.json", "plan.json", "script.json"
MODELS = "models/"

DeviceKind = Literal["android", "iphone", "linux"]


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


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """`InvalidArtifactError` for another format, another version of the protocol, and what is no manifest."""
    again = "make it again with bench bundle"
    try:
        document = json.loads(raw)
        form, protocol = document["format"], document["protocol"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArtifactError(f"{path} is not a bundle of bench: its manifest can't be read") from None
    if form != FORMAT:
        raise InvalidArtifactError(f"{path} is a bundle of format {form}, not {FORMAT}; {again}")
    if protocol != PROTOCOL_VERSION:
        raise InvalidArtifactError(
            f"{path} is a bundle for protocol {protocol}, and this is {PROTOCOL_VERSION}; "
            "take bundle, agent and bench of the same version"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise InvalidArtifactError(f"{path}: damaged manifest ({first_problem(error)}); {again}") from None


def write_bundle(
    path: Path, kind: DeviceKind, plan: bytes, script: Script, models: Mapping[str, ModelFile]
) -> str:
    """Write a bundle of `models` by digest, all or nothing; its digest.

    Raises:
        UsageError, StorageError: it can't be written there.
        InvalidArtifactError: a model can't be read.
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
                f"{path}: {name} has over {MAX_TEXT_BYTES >> 20} MiB; plan fewer models"
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


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all there, with their sizes; models' digests are checked as they are stored."""

    path: Path
    digest: str
    manifest_text: bytes
    manifest: Manifest
    plan: bytes
    script: Script
    offsets: Mapping[str, int]

    def model(self, digest: str) -> tuple[int, int]:
        """Offset and bytes of a model."""
        name = MODELS + digest
        return self.offsets[name], self.manifest.files[name].bytes


def open_bundle(path: Path) -> Bundle:
    """`InvalidArtifactError` where it can't be read, is damaged, of another version, or lacks a model."""
    try:
        with path.open("rb") as file:
            places = _places(path, file)
            manifest_text = _text(path, file, places, MANIFEST)
            manifest = parse_manifest(manifest_text, path)
            for name, info in manifest.files.items():
                if name not in places or places[name][1] != info.bytes:
                    raise InvalidArtifactError(
                        f"{path}: {name} is missing or cut short; copy the bundle again"
                    )
            texts = {}
            for name in (PLAN, SCRIPT):
                texts[name] = _text(path, file, places, name)
                if name not in manifest.files or _digest(texts[name]) != manifest.files[name].sha256:
                    raise InvalidArtifactError(f"{path}: {name} was changed; copy the bundle again")
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: cannot be read ({error.strerror}); copy the bundle again"
        ) from None
    try:
        script = Script.model_validate_json(texts[SCRIPT])
    except ValidationError as error:
        raise InvalidArtifactError(f"{path}: {SCRIPT} is invalid ({first_problem(error)})") from None
    for digest in {digest for batch in script.batches for digest in batch.slots}:
        if MODELS + digest not in manifest.files:
            raise InvalidArtifactError(f"{path}: the model {digest[:12]} is missing; make the bundle again")
    offsets = {name: offset for name, (offset, _) in places.items()}
    return Bundle(path, _digest(manifest_text), manifest_text, manifest, texts[PLAN], script, offsets)


def _places(path: Path, file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Offset and size of each file in the tar."""
    places: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.name in places or len(places) > MAX_FILES:
                    raise InvalidArtifactError(f"{path} is not a bundle of bench: {member.name[:64]!r} in it")
                places[member.name] = member.offset_data, member.size
    except tarfile.TarError:
        raise InvalidArtifactError(f"{path} is not a bundle of bench, or cut short; copy it again") from None
    return places


def _text(path: Path, file: BinaryIO, places: Mapping[str, tuple[int, int]], name: str) -> bytes:
    offset, size = places.get(name, (0, MAX_TEXT_BYTES + 1))
    if size > MAX_TEXT_BYTES:
        raise InvalidArtifactError(
            f"{path} is not a bundle of bench: it has no {name} of a size that is read"
        )
    file.seek(offset)
    return file.read(size)
