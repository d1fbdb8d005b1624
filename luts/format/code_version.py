"""Which version of this code made a result."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_ROOT = Path(__file__).resolve().parents[2]


class CodeVersion(BaseModel):
    """Package version, the commit of a checkout (None outside of one), digest of all Python files of `search`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str = Field(max_length=64)
    commit: str | None = Field(pattern=r"^[0-9a-f]{40,64}$")
    sources: str = Field(pattern=r"^[0-9a-f]{64}$")


def code_version() -> CodeVersion:
    """Of the code that runs."""
    return CodeVersion(
        package=package_version(), commit=_commit(_ROOT), sources=source_digest(_ROOT / "search")
    )


def package_version() -> str:
    """Of the installed package; `not installed` where only its sources are there."""
    try:
        return version("blocktime")
    except PackageNotFoundError:
        return "not installed"


__version__ = package_version()


def source_digest(folder: Path) -> str:
    """sha256 over the Python files under a folder with their relative paths."""
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def _commit(checkout: Path) -> str | None:
    """HEAD of the checkout whose root this is; changes since show in `sources` alone."""
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
