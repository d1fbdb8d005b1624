"""What came along with the code: sources and documents, in a checkout or in an installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout, or the folder of installed packages."""


def is_checkout(root: Path = ROOT) -> bool:
    """Whether the code runs from a checkout, where `make` works."""
    return (root / "Makefile").is_file() and (root / "pyproject.toml").is_file()


def supplied(name: str, root: Path = ROOT) -> Path:
    """Where a file of the repository such as `docs/lut.md` lies on this machine, whether it is there or not.

    Of an installed package it is in `share/blocktime` (`data-files` in pyproject.toml).
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
