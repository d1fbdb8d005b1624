"""Provenance: the code that made a result, and the origin of a LUT that was pulled."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Literal

from pydantic import Field

from luts.format.files import read_json, write_json
from luts.format.schema import IsoDate, Sha256, Text, Value

ROOT = Path(__file__).resolve().parents[2]
"""The root of the checkout, or the folder of installed packages."""


class CodeVersion(Value):
    """Package version, commit of the checkout (None outside of one), and digest of all Python files of `search`."""

    package: str = Field(max_length=64)
    commit: str | None = Field(pattern=r"^[0-9a-f]{40,64}$")
    sources: str = Field(pattern=r"^[0-9a-f]{64}$")


def code_version() -> CodeVersion:
    """Return the version of the running code."""
    return CodeVersion(
        package=package_version(), commit=_commit(ROOT), sources=source_digest(ROOT / "search")
    )


def package_version() -> str:
    """Return the version of the installed package, `not installed` if only its sources exist."""
    try:
        return version("blocktime")
    except PackageNotFoundError:
        return "not installed"


__version__ = package_version()


def source_digest(folder: Path) -> str:
    """Return the sha256 over the Python files under a folder and their relative paths."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def _commit(checkout: Path) -> str | None:
    """Return HEAD of a checkout; changes since then show in `sources` only."""
    if not (checkout / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


ORIGIN_FILE = "origin.json"
SIGNATURE_FILE = "lut.json.sig"

Signed = Literal["valid", "unchecked", "unsigned"]


class Origin(Value):
    """`origin.json` of a LUT that was pulled.

    Attributes:
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
        """Return the trust in one line."""
        return trust_words(self.verified, self.signature, self.key)


def trust_words(verified: bool, signature: Signed, key: str) -> str:
    """Return how far a LUT can be trusted, such as `verified, signature valid (key 3f…)`."""
    words = {
        "valid": f"signature valid (key {key})",
        "unchecked": "signature not checked",
        "unsigned": "unsigned",
    }
    return f"{'verified' if verified else 'unverified'}, {words[signature]}"


def read_origin(folder: Path) -> Origin | None:
    """Read the origin of the LUT in a folder; None if it was made here. Raises InvalidArtifactError."""
    path = folder / ORIGIN_FILE
    return read_json(path, Origin, 64 << 10, "pull it again") if path.exists() else None


def write_origin(folder: Path, origin: Origin) -> None:
    """Write the origin next to a LUT's files. Raises StorageError."""
    write_json(folder / ORIGIN_FILE, origin.model_dump())


def is_checkout(root: Path = ROOT) -> bool:
    """Return whether the code runs from a checkout, where `make` works."""
    return (root / "Makefile").is_file() and (root / "pyproject.toml").is_file()


def repo_file(name: str, root: Path = ROOT) -> Path:
    """Return the path of a repository file such as `docs/lut.md` on this machine, whether it exists or not.

    In an installed package it is in `share/blocktime` (`data-files` in pyproject.toml).
    """
    if is_checkout(root):
        return root / name
    try:
        found = next(
            file for file in files("blocktime") or () if file.as_posix().endswith(f"share/blocktime/{name}")
        )
    except (PackageNotFoundError, StopIteration):
        return root / name
    return Path(str(found.locate())).resolve()
