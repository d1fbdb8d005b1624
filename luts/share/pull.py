"""LUTs taken from others and given to them. What is pulled is verified before use, and overwrites nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from luts.format.atomic_file import storage_error, write_atomically
from luts.format.codec import META_FILE, decode
from luts.format.errors import InvalidArtifactError
from luts.format.json_file import read_bytes
from luts.format.lut import Lut
from luts.format.origin import (
    ORIGIN_FILE,
    SIGNATURE_FILE,
    Origin,
    Signed,
    read_origin,
    trust_words,
    write_origin,
)
from luts.format.store import PACKAGED, LutRef, LutStore, digest_of, read_files
from luts.share.index import SharedLut
from luts.share.repository import Repository
from luts.share.signature import SIGNATURE_BYTES, check, sign
from luts.source_check import check_sources
from luts.verify import verify_lut


@dataclass(frozen=True)
class Pulled:
    """A LUT that was pulled: its folder, how far it is to be trusted, and whether it was here already."""

    path: Path
    lut: SharedLut
    trust: str
    new: bool


def push(repository: Repository, folder: Path) -> tuple[SharedLut, bool]:
    """Share the LUT in a folder, with its signature where it has one; whether it is new there.

    Raises:
        UsageError: the place is only read.
        InvalidArtifactError: its entries do not follow from its samples, or what is there under its digest differs.
    """
    repository.check_writable()
    verify_lut(folder)
    return repository.push(read_files(folder), read_signature(folder))


def pull(
    repository: Repository, wanted: str, store: LutStore, public_key: Path | None = None, verify: bool = True
) -> Pulled:
    """Take a LUT into the store's first folder, as the next version of its name.

    Args:
        wanted: As `Repository.find` takes it.
        public_key: Its signature must be that of this key.
        verify: Whether all entries are recomputed from the samples first; it is `unverified` otherwise.

    Raises:
        UsageError: no LUT, or several, have such a name.
        InvalidArtifactError: it is damaged, not what the index says, does not verify, or is not signed by the key.
    """
    shared = repository.find(wanted)
    for ref in store.list():
        if ref.name == shared.name and digest_of(ref) == shared.digest:
            return Pulled(ref.path, shared, trust(ref.path), new=False)
    files, signature = repository.files(shared)
    try:
        signed, key = _signed(files, signature, public_key)
        lut = _verified(files) if verify else decode(files)
        check_sources(lut, store)
    except InvalidArtifactError as error:
        raise InvalidArtifactError(f"{shared} is not taken: {error}") from error
    if SharedLut.of_files(files) != shared:
        raise InvalidArtifactError(f"{shared} is not taken: its lut.json is not what the index says of it")
    origin = Origin(
        url=repository.location.url,
        digest=shared.digest,
        pulled=datetime.now(UTC).isoformat(timespec="seconds"),
        verified=verify,
        signature=signed,
        key=key,
    )
    beside = {ORIGIN_FILE: (origin.model_dump_json(indent=1) + "\n").encode()}
    if signature is not None:
        beside[SIGNATURE_FILE] = signature
    return Pulled(store.write_files(lut.meta, {**files, **beside}), shared, str(origin), new=True)


def sign_lut(ref: LutRef, private_key: Path) -> Path:
    """Write the signature of a verified LUT beside its files.

    Raises:
        UsageError: not an Ed25519 key.
        InvalidArtifactError: it does not verify, is signed by another key, or came with the package.
        StorageError: its folder can't be written.
    """
    if ref.path.is_relative_to(PACKAGED):
        raise InvalidArtifactError(
            f"{ref} came with the package, whose folder stays as it is; bench lut rebuild makes your own"
        )
    verify_lut(ref.path)
    signature = sign(read_files(ref.path)[META_FILE], private_key)
    there = read_signature(ref.path)
    if there not in (None, signature):
        raise InvalidArtifactError(f"{ref} is signed by another key; its signature stays")
    path = ref.path / SIGNATURE_FILE
    try:
        write_atomically(path, signature)
    except OSError as error:
        raise storage_error(f"{path} not written", error) from error
    return path


def read_signature(folder: Path) -> bytes | None:
    """Of a LUT's folder. Raises InvalidArtifactError: too large."""
    path = folder / SIGNATURE_FILE
    return read_bytes(path, SIGNATURE_BYTES, "remove it") if path.exists() else None


def note_verified(folder: Path, public_key: Path | None) -> str:
    """How far the LUT of a folder that was just verified is to be trusted; what was pulled remembers it.

    Raises:
        InvalidArtifactError: a key is given, and its signature is not that key's.
    """
    signature, origin = read_signature(folder), read_origin(folder)
    signed, key = _signed({META_FILE: read_files(folder)[META_FILE]}, signature, public_key)
    if public_key is None and origin is not None:
        signed, key = origin.signature, origin.key
    if origin is not None:
        told = origin.model_copy(update={"verified": True, "signature": signed, "key": key})
        if told != origin:
            write_origin(folder, told)
    return trust_words(True, signed, key)


def trust(folder: Path) -> str:
    """What is known of a LUT that was pulled; `own` of one that was made here, `packaged` of the package's."""
    if folder.is_relative_to(PACKAGED):
        return "packaged"
    origin = read_origin(folder)
    return str(origin) if origin else "own"


def _signed(
    files: Mapping[str, bytes], signature: bytes | None, public_key: Path | None
) -> tuple[Signed, str]:
    if public_key is not None:
        return "valid", check(files[META_FILE], signature, public_key)
    return ("unsigned" if signature is None else "unchecked"), ""


def _verified(files: Mapping[str, bytes]) -> Lut:
    with tempfile.TemporaryDirectory(prefix="bench-pull-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return verify_lut(Path(folder))
