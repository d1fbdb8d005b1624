"""Where a LUT that was not made here came from, beside its files, and how far it is to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from luts.format.json_file import read_json, write_json
from luts.format.values import IsoDate, Sha256, Text, Value

ORIGIN_FILE = "origin.json"
SIGNATURE_FILE = "lut.json.sig"

Signed = Literal["valid", "unchecked", "unsigned"]


class Origin(Value):
    """`origin.json` of a LUT that was pulled.

    Attributes:
        url: Where from.
        digest: sha256 of its lut.json.
        verified: Whether this machine has recomputed all its entries from its samples.
        signature: `valid` for the public key of `key`, `unchecked` where no key was given, or `unsigned`.
        key: Fingerprint of the key it was checked with.
    """

    format: Literal["blocktime-lut-origin/1"] = "blocktime-lut-origin/1"
    url: Text
    digest: Sha256
    pulled: IsoDate
    verified: bool
    signature: Signed
    key: Text = ""

    def __str__(self) -> str:
        return trust_words(self.verified, self.signature, self.key)


def trust_words(verified: bool, signature: Signed, key: str) -> str:
    """`verified, signature valid (key 3f…)`, and so on."""
    words = {
        "valid": f"signature valid (key {key})",
        "unchecked": "signature not checked",
        "unsigned": "unsigned",
    }
    return f"{'verified' if verified else 'unverified'}, {words[signature]}"


def read_origin(folder: Path) -> Origin | None:
    """Of a LUT's folder; None where it was made here. Raises InvalidArtifactError."""
    path = folder / ORIGIN_FILE
    return read_json(path, Origin, 64 << 10, "pull it again") if path.exists() else None


def write_origin(folder: Path, origin: Origin) -> None:
    """Beside a LUT's files. Raises StorageError."""
    write_json(folder / ORIGIN_FILE, origin.model_dump())
