"""A place of shared LUTs: what is there, one more, the files of one.

Pushes at the same time lose nothing: each writes files of its own, the entry of a LUT last, and entries that are
listed are what counts. `index.json` repeats them for servers that can't list. Whoever writes it lists again
afterwards and writes again if it lacks one: the last to write it has listed after all others' entries."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from luts.format.errors import InvalidArtifactError, StorageError, UsageError, few, first_problem
from luts.format.files import read_bytes, storage_error, write_atomically
from luts.format.lut import MAX_FILE_BYTES, META_FILE, Lut, decode, decode_meta
from luts.format.provenance import (
    ORIGIN_FILE,
    SIGNATURE_FILE,
    Origin,
    Signed,
    read_origin,
    trust_words,
    write_origin,
)
from luts.format.schema import Count, IsoDate, ModelId, Name, PositiveMs, Sha256, Text, Value
from luts.format.store import PACKAGED, LutRef, LutStore, digest_of, read_files
from luts.share.location import Location
from luts.verify import check_sources, verify_lut

INDEX_FILE = "index.json"
INDEX_FOLDER = "index"
MAX_LUTS = 20_000
MAX_ENTRY_BYTES = 16 << 10
MAX_INDEX_BYTES = 64 << 20

ENTRY_PATH = re.compile(r"index/([a-z0-9._-]+)/([a-z0-9._-]+)/([a-z0-9._-]+)/([0-9a-f]{64})\.json")


class SharedFile(Value):
    """Of a LUT: digest and size in bytes."""

    sha256: Sha256
    size: Count


class SharedLut(Value):
    """A LUT as the index has it: a claim until it is pulled and verified."""

    format: Literal["blocktime-shared-lut/1"] = "blocktime-shared-lut/1"
    digest: Sha256
    device: Name
    space: Name
    variant: Name
    model: Text
    soc: Text
    os: Text
    os_build: Text
    runtime: Text
    measured: Literal["measured", "simulated"]
    reference_id: ModelId
    reference_ms: PositiveMs
    noise_floor: Annotated[float, Field(ge=0)]
    mape: Annotated[float, Field(ge=0)] | None
    created: IsoDate
    files: Annotated[
        dict[Literal["lut.json", "entries.csv", "models.csv", "samples.parquet"], SharedFile],
        Field(min_length=4),
    ]

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> Self:
        """From a LUT's four files. Raises InvalidArtifactError."""
        meta = decode_meta(files[META_FILE])
        device = meta.device
        return cls(
            digest=hashlib.sha256(files[META_FILE]).hexdigest(),
            device=device.name,
            space=meta.space,
            variant=meta.variant,
            model=device.model,
            soc=device.soc,
            os=device.os,
            os_build=device.os_build,
            runtime=meta.versions.runtime,
            measured=meta.measured,
            reference_id=meta.reference_id,
            reference_ms=meta.reference_ms,
            noise_floor=meta.noise_floor,
            mape=meta.heldout_error.mape if meta.heldout_error else None,
            created=meta.created,
            files={name: _fact(files[name]) for name in MAX_FILE_BYTES},  # type: ignore[misc]
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Device, space, variant and digest."""
        return self.device, self.space, self.variant, self.digest

    @property
    def name(self) -> str:
        """Without the digest."""
        return "/".join(self.parts[:3])

    def __str__(self) -> str:
        return f"{self.name}/{self.digest[:12]}"

    @property
    def path(self) -> str:
        """Of its own file in the index."""
        return "/".join((INDEX_FOLDER, *self.parts)) + ".json"

    def file_path(self, name: str) -> str:
        """Of one of its files."""
        return f"luts/{self.digest}/{name}"


class Index(Value):
    """`index.json`."""

    format: Literal["blocktime-lut-index/1"] = "blocktime-lut-index/1"
    luts: Annotated[tuple[SharedLut, ...], Field(max_length=MAX_LUTS)]


def _fact(content: bytes) -> SharedFile:
    return SharedFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 16 << 10


def sign(content: bytes, private_key: Path) -> bytes:
    """The signature of a lut.json. Raises UsageError: no such key, or not one of Ed25519."""
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(_key(private_key), password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--key {private_key}: not a private key without a password in PEM") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(
            f"--key {private_key}: not an Ed25519 key; openssl genpkey -algorithm ed25519 makes one"
        )
    return bytes(key.sign(content))


def check(content: bytes, signature: bytes | None, public_key: Path) -> str:
    """The fingerprint of the key, if the signature is that key's.

    Raises:
        UsageError: no such key, or not one of Ed25519.
        InvalidArtifactError: there is no signature, or it is another's or of another content.
    """
    from cryptography.exceptions import InvalidSignature

    key = _public(public_key)
    if signature is None:
        raise InvalidArtifactError("it is unsigned; leave --key out to take it nevertheless")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise InvalidArtifactError(
            f"its signature is not valid for {public_key}: signed with another key, or changed since"
        ) from None
    return fingerprint(public_key)


def fingerprint(public_key: Path) -> str:
    """Sixteen hexadecimal digits of the sha256 of the 32 bytes of a public key."""
    return hashlib.sha256(_public(public_key).public_bytes_raw()).hexdigest()[:16]


def _public(path: Path) -> Any:
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(_key(path))
    except ValueError as error:
        raise UsageError(f"--key {path}: not a public key in PEM; openssl pkey -pubout writes it") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"--key {path}: not an Ed25519 key")
    return key


def _key(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_KEY_BYTES, "give a PEM file")
    except InvalidArtifactError as error:
        raise UsageError(f"--key {error}") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError("signatures need cryptography; pip install 'blocktime[share]'") from error
    return ed25519, serialization


WRITES = 20
"""Times that index.json is written again because others wrote theirs in between."""


@dataclass(frozen=True)
class Repository:
    """LUTs under a location; `tell` is told of entries that can't be read."""

    location: Location
    tell: Callable[[str], None]

    def luts(self) -> list[SharedLut]:
        """All, in order of name and date.

        Raises:
            UsageError: there is no such folder.
            InvalidArtifactError: a server that lists no names has no index.json, or it is damaged.
            StorageError: it can't be reached.
        """
        if not self.location.is_there():
            raise UsageError(
                f"{self.location.url}: no such folder; check its name, or bench lut push makes it"
            )
        return sorted(self._entries().values(), key=lambda lut: (lut.name, lut.created, lut.digest))

    def check_writable(self) -> None:
        """Raises UsageError where the place is only read."""
        if not self.location.writable:
            raise UsageError(f"{self.location.url} is only read; push to a folder, s3:// or hf://")

    def push(self, files: Mapping[str, bytes], signature: bytes | None) -> tuple[SharedLut, bool]:
        """Add a LUT of four files; what is there, and whether it was added now.

        Raises:
            UsageError: the place is only read.
            InvalidArtifactError: other files are there under its digest, or another signature; they stay.
            StorageError: the place refuses.
        """
        self.check_writable()
        lut = SharedLut.of_files(files)
        for name in MAX_FILE_BYTES:
            self.location.create(lut.file_path(name), files[name])
        if signature is not None:
            self.location.create(lut.file_path(SIGNATURE_FILE), signature)
        new = self.location.create(lut.path, (lut.model_dump_json(indent=1) + "\n").encode())
        self._write_index()
        return lut, new

    def files(self, lut: SharedLut) -> tuple[dict[str, bytes], bytes | None]:
        """A LUT's four files, which have the digests that its entry says, and its signature.

        Raises:
            InvalidArtifactError: one is missing, too large, or another.
            StorageError: the place can't be reached.
        """
        files = {}
        for name, limit in MAX_FILE_BYTES.items():
            told = next(fact for file, fact in lut.files.items() if file == name)
            content = self.location.read(lut.file_path(name), min(told.size, limit))
            if content is None or hashlib.sha256(content).hexdigest() != told.sha256:
                why = "is missing" if content is None else "differs from its digest"
                raise InvalidArtifactError(
                    f"{self.location.url}: {name} of {lut} {why}; tell who keeps the place"
                )
            files[name] = content
        return files, self.location.read(lut.file_path(SIGNATURE_FILE), SIGNATURE_BYTES)

    def find(self, wanted: str) -> SharedLut:
        """The LUT of a name: `device/space/variant`, parts of it in order, or the first digits of a digest.

        Of one name's LUTs the newest. Raises UsageError listing what there is.
        """
        luts = self.luts()
        words = [word for word in wanted.split("/") if word]
        fitting = [lut for lut in luts if _fits(lut, words)]
        names = sorted({lut.name for lut in fitting or luts})
        if fitting and len(names) == 1:
            return max(fitting, key=lambda lut: (lut.created, lut.digest))
        what = (
            f"fits several: {few(names, 8)}; name one"
            if fitting
            else f"is not there; there are {few(names, 8) or 'none'}"
        )
        raise UsageError(f"{self.location.url}: LUT {wanted[:120]} {what}")

    def _entries(self) -> dict[str, SharedLut]:
        indexed = {lut.path: lut for lut in self._index().luts}
        if not self.location.listed:
            return indexed
        listed = [path for path in self.location.names(INDEX_FOLDER) if ENTRY_PATH.fullmatch(path)][:MAX_LUTS]
        entries = {path: indexed.get(path) or self._entry(path) for path in listed}
        return {path: lut for path, lut in entries.items() if lut is not None}

    def _index(self) -> Index:
        content = self.location.read(INDEX_FILE, MAX_INDEX_BYTES)
        if content is None:
            if self.location.listed:
                return Index(luts=())
            raise InvalidArtifactError(
                f"{self.location.url} has no {INDEX_FILE}; give the place that LUTs were pushed to"
            )
        try:
            return Index.model_validate_json(content)
        except ValidationError as error:
            problem = f"{self.location.url}: {INDEX_FILE} is damaged ({first_problem(error, 'JSON')})"
            if not self.location.listed:
                raise InvalidArtifactError(f"{problem}; push a LUT to write it again") from error
            self.tell(f"{problem}; the entries are read instead")
            return Index(luts=())

    def _entry(self, path: str) -> SharedLut | None:
        try:
            content = self.location.read(path, MAX_ENTRY_BYTES)
            if content is None:
                return None
            lut = SharedLut.model_validate_json(content)
            if lut.path != path:
                raise InvalidArtifactError(f"{self.location.url}: it is the entry of {lut}")
            return lut
        except ValidationError as error:
            self.tell(f"{path} is left out: {first_problem(error, 'JSON')}")
        except InvalidArtifactError as error:
            self.tell(f"{path} is left out: {error}")
        return None

    def _write_index(self) -> None:
        for _ in range(WRITES):
            entries = self._entries()
            if self._index().luts == (told := tuple(entries[path] for path in sorted(entries))):
                return
            self.location.replace(INDEX_FILE, (Index(luts=told).model_dump_json() + "\n").encode())
        raise StorageError(
            f"{self.location.url}: others write {INDEX_FILE} all the time; the LUT is there, push again to index it"
        )


def _fits(lut: SharedLut, words: list[str]) -> bool:
    remaining = iter(lut.parts)
    return bool(words) and all(
        any(
            word == part or (part == lut.digest and len(word) >= 6 and part.startswith(word))
            for part in remaining
        )
        for word in words
    )


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
