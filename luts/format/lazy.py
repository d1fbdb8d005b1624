"""Lazy imports: a package's names are imported on first use (PEP 562), so that importing the package is fast."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_names(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package that imports its names under `if TYPE_CHECKING:`.

    The imports in that block, written for type checkers, are read from the source and done on first use.

    Args:
        package: The package's `__name__`.
        file: Its `__file__`.
    """
    homes = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for block in ast.parse(Path(file).read_bytes()).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        value: object = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names, sorted(homes)
