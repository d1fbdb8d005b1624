"""Plug-ins: a user's own code, imported by the path of its file or the name of its module.

A plug-in registers what it adds as it is imported. $BLOCKTIME_IMPORT lists imported plug-ins, separated as
$PATH is, so that processes that are started later import them too.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from luts.format.errors import BlocktimeError, UsageError

VARIABLE = "BLOCKTIME_IMPORT"
ENTRY_POINTS = "blocktime.plugins"

_loaded: dict[str, ModuleType] = {}
_installed_asked = False


def load_plugin(text: str) -> ModuleType:
    """Import a file or a module, once, and return it.

    Args:
        text: `my_blocks.py`, which need not be on Python's path, or a dotted module, which must be.

    Raises:
        UsageError: the import failed; the message names the file and the cause.
    """
    is_file = text.endswith(".py") or os.sep in text
    name = str(Path(text).expanduser().resolve()) if is_file else text
    if name in _loaded:
        return _loaded[name]
    try:
        module = _file_module(Path(name)) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        code = error.code if isinstance(error, BlocktimeError) else "plugin_import_failed"
        raise UsageError(f"{name} cannot be imported: {_cause(error, name)}", code=code) from error
    _loaded[name] = module
    os.environ[VARIABLE] = os.pathsep.join(_loaded)
    return module


def load_plugins(texts: Iterable[str]) -> None:
    """Import several files or modules."""
    for text in texts:
        load_plugin(text)


def load_entry_points() -> None:
    """Import the modules that installed packages declare under the entry point `blocktime.plugins`."""
    load_plugins(sorted({entry.module for entry in entry_points(group=ENTRY_POINTS)}))


def load_installed() -> None:
    """Import entry points and $BLOCKTIME_IMPORT, once; registries call it before look-ups."""
    global _installed_asked
    if _installed_asked:
        return
    _installed_asked = True
    try:
        load_entry_points()
        load_plugins(filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))
    except UsageError:
        _installed_asked = False
        raise


def loaded_plugins() -> tuple[str, ...]:
    """Return absolute paths and module names of imported plug-ins, in order of import."""
    return tuple(_loaded)


def plugin_files() -> tuple[Path, ...]:
    """Return the Python files of imported plug-ins; for a module in a package those of the whole package."""
    files = {file for module in _loaded.values() for file in files_of(module)}
    return tuple(sorted(files))


def files_of(module: ModuleType) -> set[Path]:
    """Return the Python files that decide what a module does, as far as its package contains them."""
    package = sys.modules.get((module.__package__ or "").partition(".")[0])
    if package is not None and getattr(package, "__path__", None):
        return {file for folder in package.__path__ for file in Path(folder).rglob("*.py")}
    file = getattr(module, "__file__", None)
    return {Path(file)} if file else set()


@dataclass(frozen=True)
class PickleWithPlugins:
    """A pickled value for another process, which imports this process's plug-ins before it unpickles."""

    plugins: tuple[str, ...]
    pickled: bytes

    @classmethod
    def of(cls, value: object, dumps: Callable[[object], bytes] = pickle.dumps) -> PickleWithPlugins:
        """Pickle a value; `dumps` may be a function that also pickles classes of the main program."""
        return cls(loaded_plugins(), dumps(value))

    def value(self) -> Any:
        """Return the value; raise `UsageError` if a plug-in cannot be imported here."""
        load_plugins(self.plugins)
        return pickle.loads(self.pickled)  # noqa: S301 - from the process that started this one


def _file_module(path: Path) -> ModuleType:
    """Import a file under a name that no other file has, the same in every process."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(path.name) and Path(file).resolve() == path:
            return module
    if not path.is_file():
        raise FileNotFoundError("file not found")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _cause(error: BaseException, name: str) -> str:
    """Return the cause in one line, with the line of the plug-in's file if the traceback has one."""
    cause = (str(error).strip().splitlines() or ["no message"])[0]
    if not isinstance(error, UsageError | FileNotFoundError):
        cause = f"{type(error).__name__}: {cause}"
    within = name if name.endswith(".py") else name.replace(".", os.sep)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if within in frame.filename]
    if not frames:
        return cause
    file = "" if frames[-1].filename == name else f"{frames[-1].filename}, "
    return f"{cause} ({file}line {frames[-1].lineno})"
