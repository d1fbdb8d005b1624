"""A user's own code, imported by the path of its file or the name of its module: there it registers what it
adds.

What was imported stands in $BLOCKTIME_IMPORT, separated as in $PATH: programs that are started later import
it too.
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

from luts.format.errors import UsageError

VARIABLE = "BLOCKTIME_IMPORT"
ENTRY_POINTS = "blocktime.plugins"

_loaded: dict[str, ModuleType] = {}
_installed_asked = False


def load_plugin(text: str) -> None:
    """Import a file or a module, once.

    Args:
        text: `my_blocks.py`, which needs no place on Python's path, or a dotted module, which does.

    Raises:
        UsageError: names the file and why it can't be imported, what it registers twice say.
    """
    is_file = text.endswith(".py") or os.sep in text
    name = str(Path(text).expanduser().resolve()) if is_file else text
    if name in _loaded:
        return
    try:
        module = _file_module(Path(name)) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name} cannot be imported: {_cause(error, name)}") from error
    _loaded[name] = module
    os.environ[VARIABLE] = os.pathsep.join(_loaded)


def load_plugins(texts: Iterable[str]) -> None:
    """`load_plugin` for several."""
    for text in texts:
        load_plugin(text)


def load_entry_points() -> None:
    """Import what installed packages declare, by modules under the entry point `blocktime.plugins`."""
    load_plugins(sorted({entry.module for entry in entry_points(group=ENTRY_POINTS)}))


def load_installed() -> None:
    """Import entry points and what $BLOCKTIME_IMPORT names, at the first call; registries ask for it themselves."""
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
    """Absolute paths and names of modules that were imported, in that order."""
    return tuple(_loaded)


def plugin_files() -> tuple[Path, ...]:
    """Python files of what was imported; of a module in a package, those of the whole package."""
    files = {file for module in _loaded.values() for file in files_of(module)}
    return tuple(sorted(files))


def files_of(module: ModuleType) -> set[Path]:
    """Python files that decide what a module does, as far as its package holds them."""
    package = sys.modules.get((module.__package__ or "").partition(".")[0])
    if package is not None and getattr(package, "__path__", None):
        return {file for folder in package.__path__ for file in Path(folder).rglob("*.py")}
    file = getattr(module, "__file__", None)
    return {Path(file)} if file else set()


@dataclass(frozen=True)
class Carried:
    """A value on its way to another process, which first imports what this one has imported."""

    plugins: tuple[str, ...]
    pickled: bytes

    @classmethod
    def of(cls, value: object, dumps: Callable[[object], bytes] = pickle.dumps) -> Carried:
        """Pack it, by `dumps` where classes of the main program must travel too."""
        return cls(loaded_plugins(), dumps(value))

    def value(self) -> Any:
        """The value; `UsageError` where a plugin can't be imported here."""
        load_plugins(self.plugins)
        return pickle.loads(self.pickled)  # noqa: S301 - from the process that started this one


def _file_module(path: Path) -> ModuleType:
    """Import a file under a name that no other has, the same in every process."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(path.name) and Path(file).resolve() == path:
            return module
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
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
    """In one line, with the line of the file where it has one."""
    cause = (str(error).strip().splitlines() or ["no message"])[0]
    if not isinstance(error, UsageError | FileNotFoundError):
        cause = f"{type(error).__name__}: {cause}"
    within = name if name.endswith(".py") else name.replace(".", os.sep)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if within in frame.filename]
    if not frames:
        return cause
    file = "" if frames[-1].filename == name else f"{frames[-1].filename}, "
    return f"{cause} ({file}line {frames[-1].lineno})"
