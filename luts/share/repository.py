"""Repositories of shared LUTs: list, push and pull.

Simultaneous pushes lose nothing: each writes files of its own, the entry of a LUT last, and the listed
entries are authoritative. `index.json` repeats them for servers that can't list. After writing it a push
lists again, and writes it again if an entry is missing: the last writer has listed after all others' entries.
"""

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

from luts.format.errors import (
    InvalidArtifactError,
    StorageError,
    UsageError,
    first_problem,
    install_extra,
    shorten,
)
from luts.format.files import read_bytes, storage_errors, write_atomically
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
from luts.format.store import PACKAGED, LutRef, LutStore, digest_of, is_subsequence, read_files
from luts.share.location import Location
from luts.verify import check_sources, verify_lut

INDEX_FILE = "index.json"
INDEX_FOLDER = "index"
MAX_LUTS = 20_000
MAX_ENTRY_BYTES = 16 << 10
MAX_INDEX_BYTES = 64 << 20

ENTRY_PATH = re.compile(r"index/([a-z0-9._-]+)/([a-z0-9._-]+)/([a-z0-9._-]+)/([0-9a-f]{64})\.json")


class SharedFile(Value):
    """One file of a LUT: digest and size in bytes."""

    sha256: Sha256
    size: Count


class SharedLut(Value):
    """A LUT's entry in the index: a claim until it is pulled and verified."""

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
        """Return the entry of a LUT's four files. Raises InvalidArtifactError."""
        meta = decode_meta(files[META_FILE])
        same_fields = cls.model_fields.keys() - {"format", "files"}
        return cls(
            **meta.model_dump(include=same_fields - {"device", "digest"}),
            **meta.device.model_dump(include=same_fields),
            digest=hashlib.sha256(files[META_FILE]).hexdigest(),
            device=meta.device.name,
            runtime=meta.versions.runtime,
            mape=meta.heldout_error.mape if meta.heldout_error else None,
            files={name: _shared_file(files[name]) for name in MAX_FILE_BYTES},  # type: ignore[misc]
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Device, space, variant and digest."""
        return self.device, self.space, self.variant, self.digest

    @property
    def name(self) -> str:
        """Name without the digest."""
        return "/".join(self.parts[:3])

    def __str__(self) -> str:
        """Return the name and the first digits of the digest."""
        return f"{self.name}/{self.digest[:12]}"

    @property
    def path(self) -> str:
        """Path of the entry in the index."""
        return "/".join((INDEX_FOLDER, *self.parts)) + ".json"

    def file_path(self, name: str) -> str:
        """Return the path of one of its files."""
        return f"luts/{self.digest}/{name}"


class Index(Value):
    """`index.json`."""

    format: Literal["blocktime-lut-index/1"] = "blocktime-lut-index/1"
    luts: Annotated[tuple[SharedLut, ...], Field(max_length=MAX_LUTS)]


def _shared_file(content: bytes) -> SharedFile:
    return SharedFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 16 << 10


def sign(content: bytes, private_key: Path) -> bytes:
    """Return the signature of a lut.json. Raises UsageError: an unreadable key, or not an Ed25519 key."""
    return bytes(_load_key(private_key, private=True).sign(content))


def check_signature(content: bytes, signature: bytes | None, public_key: Path) -> str:
    """Check a signature, and return its key's fingerprint: 16 hexadecimal digits of the sha256 of its 32 bytes.

    Raises:
        UsageError: an unreadable key, or not an Ed25519 key.
        InvalidArtifactError: there is no signature, or it is of another key or content.
    """
    key = _load_key(public_key, private=False)
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        raise InvalidArtifactError("it is unsigned; omit --key to accept it", code="unsigned")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise InvalidArtifactError(
            f"its signature is not valid for {public_key}: signed with another key, or changed since",
            code="wrong_signature",
        ) from None
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _load_key(path: Path, private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError(
            f"signatures need cryptography; {install_extra('share')}", code="package_missing"
        ) from error
    wanted = "a private key without a password in PEM" if private else "a public key in PEM"
    made_by = "genpkey -algorithm ed25519" if private else "pkey -pubout"
    try:
        content = read_bytes(path, MAX_KEY_BYTES, "give a PEM file")
        if private:
            key: Any = serialization.load_pem_private_key(content, password=None)
        else:
            key = serialization.load_pem_public_key(content)
    except InvalidArtifactError as error:
        raise UsageError(f"--key {error}", code="invalid_key") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--key {path}: not {wanted}; write it with openssl {made_by}", code="invalid_key"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        raise UsageError(
            f"--key {path}: not an Ed25519 key; make one with openssl genpkey -algorithm ed25519",
            code="invalid_key",
        )
    return key


WRITES = 20
"""Attempts to write index.json while others write it too."""


@dataclass(frozen=True)
class Repository:
    """LUTs under a location; `warn` is called with one line about each unreadable entry."""

    location: Location
    warn: Callable[[str], None]

    def luts(self) -> list[SharedLut]:
        """List all LUTs by name and date.

        Raises:
            UsageError: the folder does not exist.
            InvalidArtifactError: the index.json of a server that can't list names is missing or damaged.
            StorageError: the repository can't be reached.
        """
        if not self.location.exists():
            raise UsageError(
                f"{self.location.url}: no such folder; check its name, or create it with bench lut push",
                code="unknown_folder",
            )
        return sorted(self._entries().values(), key=lambda lut: (lut.name, lut.created, lut.digest))

    def check_writable(self) -> None:
        """Raise UsageError if the repository is read-only."""
        if not self.location.writable:
            raise UsageError(
                f"{self.location.url} is read-only; push to a folder, s3:// or hf://",
                code="read_only_repository",
            )

    def push(self, files: Mapping[str, bytes], signature: bytes | None) -> tuple[SharedLut, bool]:
        """Add a LUT of four files; return its entry, and whether it is new.

        Raises:
            UsageError: the repository is read-only.
            InvalidArtifactError: other files exist under its digest, or another signature; they are kept.
            StorageError: the repository can't be written.
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
        """Return a LUT's four files, checked against the digests in its entry, and its signature.

        Raises:
            InvalidArtifactError: one is missing, too large or different.
            StorageError: the repository can't be reached.
        """
        files = {}
        for name, limit in MAX_FILE_BYTES.items():
            entry = next(entry for file, entry in lut.files.items() if file == name)
            content = self.location.read(lut.file_path(name), min(entry.size, limit))
            if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
                why = "is missing" if content is None else "differs from its digest"
                raise InvalidArtifactError(
                    f"{self.location.url}: {name} of {lut} {why}; contact the owner of the repository",
                    code="shared_file_damaged",
                )
            files[name] = content
        return files, self.location.read(lut.file_path(SIGNATURE_FILE), SIGNATURE_BYTES)

    def find(self, wanted: str) -> SharedLut:
        """Return the newest LUT that a name fits.

        `wanted` is `device/space/variant`, parts of it in order, or the first digits of a digest.

        Raises UsageError: none fits, or LUTs of several names; the message lists them.
        """
        luts = self.luts()
        words = [word for word in wanted.split("/") if word]
        fitting = [lut for lut in luts if _fits(lut, words)]
        names = sorted({lut.name for lut in fitting or luts})
        if fitting and len(names) == 1:
            return max(fitting, key=lambda lut: (lut.created, lut.digest))
        if fitting:
            problem, code = f"fits several: {shorten(names, 8)}; name one", "ambiguous_lut"
        else:
            problem, code = f"is not there; there are {shorten(names, 8) or 'none'}", "unknown_lut"
        raise UsageError(f"{self.location.url}: LUT {wanted[:120]} {problem}", code=code)

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
                f"{self.location.url} has no {INDEX_FILE}; give the folder that LUTs were pushed to",
                code="no_index",
            )
        try:
            return Index.model_validate_json(content)
        except ValidationError as error:
            problem = f"{self.location.url}: {INDEX_FILE} is damaged ({first_problem(error, 'JSON')})"
            if not self.location.listed:
                raise InvalidArtifactError(
                    f"{problem}; push a LUT to write it again", code="invalid_index"
                ) from error
            self.warn(f"{problem}; the entries are read instead")
            return Index(luts=())

    def _entry(self, path: str) -> SharedLut | None:
        try:
            content = self.location.read(path, MAX_ENTRY_BYTES)
            if content is None:
                return None
            lut = SharedLut.model_validate_json(content)
            if lut.path != path:
                raise InvalidArtifactError(
                    f"{self.location.url}: it is the entry of {lut}", code="invalid_index"
                )
            return lut
        except ValidationError as error:
            self.warn(f"{path} is left out: {first_problem(error, 'JSON')}")
        except InvalidArtifactError as error:
            self.warn(f"{path} is left out: {error}")
        return None

    def _write_index(self) -> None:
        for _ in range(WRITES):
            entries = self._entries()
            if self._index().luts == (luts := tuple(entries[path] for path in sorted(entries))):
                return
            self.location.replace(INDEX_FILE, (Index(luts=luts).model_dump_json() + "\n").encode())
        raise StorageError(
            f"{self.location.url}: {INDEX_FILE} keeps changing; the LUT was uploaded, push again to index it",
            code="index_keeps_changing",
        )


def _fits(lut: SharedLut, words: list[str]) -> bool:
    """Return whether words are parts of a LUT's name in order, or the first digits of its digest."""
    digest = lut.digest
    whole = [digest if len(word) >= 6 and digest.startswith(word) else word for word in words]
    return bool(words) and is_subsequence(whole, lut.parts)


@dataclass(frozen=True)
class Pulled:
    """A pulled LUT: its folder, its entry, how far it can be trusted, and whether it is new on this machine."""

    path: Path
    lut: SharedLut
    trust: str
    new: bool


def push(repository: Repository, folder: Path) -> tuple[SharedLut, bool]:
    """Share the LUT in a folder, with its signature if it has one; return its entry, and whether it is new.

    Raises:
        UsageError: the repository is read-only.
        InvalidArtifactError: its entries do not follow from its samples, or other files exist under its
        digest.
    """
    repository.check_writable()
    verify_lut(folder)
    return repository.push(read_files(folder), read_signature(folder))


def pull(
    repository: Repository, wanted: str, store: LutStore, public_key: Path | None = None, verify: bool = True
) -> Pulled:
    """Download a LUT into the store's first folder, as the next version of its name.

    Args:
        repository: Where it is shared.
        wanted: Its name; see `Repository.find`.
        store: LUTs of this machine.
        public_key: The key that must have signed it.
        verify: Whether all entries are recomputed from the samples first; otherwise it is `unverified`.

    Raises:
        UsageError: no LUT, or several, have such a name.
        InvalidArtifactError: it is damaged, not what the index says, does not verify, or is not signed by the
            key.
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
        raise InvalidArtifactError(f"{shared} was rejected: {error}", code=error.code) from error
    if SharedLut.of_files(files) != shared:
        raise InvalidArtifactError(
            f"{shared} was rejected: its lut.json differs from its entry in the index", code="index_differs"
        )
    origin = Origin(
        url=repository.location.url,
        digest=shared.digest,
        pulled=datetime.now(UTC).isoformat(timespec="seconds"),
        verified=verify,
        signature=signed,
        key=key,
    )
    extra_files = {ORIGIN_FILE: (origin.model_dump_json(indent=1) + "\n").encode()}
    if signature is not None:
        extra_files[SIGNATURE_FILE] = signature
    return Pulled(store.write_files(lut.meta, {**files, **extra_files}), shared, str(origin), new=True)


def sign_lut(ref: LutRef, private_key: Path) -> Path:
    """Write the signature of a verified LUT next to its files, and return its path.

    Raises:
        UsageError: not an Ed25519 key.
        InvalidArtifactError: it does not verify, is signed by another key, or is part of the package.
        StorageError: its folder can't be written.
    """
    if ref.path.is_relative_to(PACKAGED):
        raise InvalidArtifactError(
            f"{ref} is part of the package, which is read-only; make your own with bench lut rebuild",
            code="packaged_lut",
        )
    verify_lut(ref.path)
    signature = sign(read_files(ref.path)[META_FILE], private_key)
    if read_signature(ref.path) not in (None, signature):
        raise InvalidArtifactError(
            f"{ref} is signed by another key, and its signature is kept", code="wrong_signature"
        )
    path = ref.path / SIGNATURE_FILE
    with storage_errors(f"{path} not written"):
        write_atomically(path, signature)
    return path


def read_signature(folder: Path) -> bytes | None:
    """Return the signature in a LUT's folder, None without one; InvalidArtifactError: it is too large."""
    path = folder / SIGNATURE_FILE
    return read_bytes(path, SIGNATURE_BYTES, "remove it") if path.exists() else None


def note_verified(folder: Path, public_key: Path | None) -> str:
    """Record that a LUT was verified, and return how far it can be trusted.

    Raises InvalidArtifactError: the signature is not of the given key.
    """
    signature, origin = read_signature(folder), read_origin(folder)
    signed, key = _signed({META_FILE: read_files(folder)[META_FILE]}, signature, public_key)
    if public_key is None and origin is not None:
        signed, key = origin.signature, origin.key
    if origin is not None:
        updated = origin.model_copy(update={"verified": True, "signature": signed, "key": key})
        if updated != origin:
            write_origin(folder, updated)
    return trust_words(True, signed, key)


def trust(folder: Path) -> str:
    """Return how far a pulled LUT can be trusted, `own` if it was made here, or `packaged`."""
    if folder.is_relative_to(PACKAGED):
        return "packaged"
    origin = read_origin(folder)
    return str(origin) if origin else "own"


def _signed(
    files: Mapping[str, bytes], signature: bytes | None, public_key: Path | None
) -> tuple[Signed, str]:
    if public_key is not None:
        return "valid", check_signature(files[META_FILE], signature, public_key)
    return ("unsigned" if signature is None else "unchecked"), ""


def _verified(files: Mapping[str, bytes]) -> Lut:
    with tempfile.TemporaryDirectory(prefix="bench-pull-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return verify_lut(Path(folder))
