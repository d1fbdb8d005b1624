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

from luts.format.atomic_file import check_writable, storage_error
from luts.format.errors import InvalidArtifactError
from luts.format.messages import first_problem
from luts.format.values import Sha256, Value
from orchestrator.bundle.script import Script
from orchestrator.wire.fields import PROTOCOL_VERSION
from orchestrator.wire.frames import MAX_PAYLOAD_BYTES
from orchestrator.wire.model_file import ModelFile

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
