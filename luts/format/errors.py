"""Errors a user may see, each in one line: what, why, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


MAX_LINE = 2000
"""Characters of an error; a longer one quotes a file or an agent, and its end says what to do."""


class BlocktimeError(Exception):
    """Base of all expected errors; `str()` is the one line that the command prints.

    Attributes:
        code: Stable name of the condition in snake_case, such as "unknown_device"; programs and tests match
            it, never the message. Empty where no caller distinguishes the condition.
    """

    def __init__(self, message: str = "", *, code: str = "") -> None:
        """Create the error from its line and its code; text that it quotes is kept from breaking or flooding it."""
        line = "".join(char if char.isprintable() else " " for char in message)
        super().__init__(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 500]} … {line[-490:]}")
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling `__init__`, whose arguments subclasses change."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[BlocktimeError], args: tuple[Any, ...], state: dict[str, Any]) -> BlocktimeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(BlocktimeError):
    """A name, option or value that the caller must correct: unknown space, bad architecture."""


class InfeasibleError(BlocktimeError):
    """No architecture of the space meets the constraints."""

    def __init__(self, message: str) -> None:
        """Set the message."""
        super().__init__(message, code="infeasible")


class InvalidArtifactError(BlocktimeError):
    """A LUT, journal, checkpoint, architecture or model file is damaged, foreign or too large."""


class StorageError(BlocktimeError):
    """A file could not be written: disk full, no permission. Nothing half-written is left."""


OUT_OF_MEMORY = (
    "out of memory; close other programs or use fewer --workers, then run the same command to resume"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is out-of-memory of Python or torch, on CPU or GPU, without importing torch."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return of_torch or isinstance(error, MemoryError)


def first_line(error: BaseException) -> str:
    """Return `Type: message` with the first non-empty line of the error's message, cut to 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def install_extra(extra: str) -> str:
    """Return how to install what an extra of this package needs; the package is on no index."""
    return f"from a checkout of blocktime, pip install -e '.[{extra}]'"


SHOWN = 5
"""Number of names shown: the closest ones, or the first of a long list."""


def shorten(names: Sequence[str], shown: int = SHOWN) -> str:
    """Return the first names and how many more there are: `a, b, c and 4 more`."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def close_names(name: str, known: Collection[str], count: int = SHOWN, cutoff: float = 0.6) -> list[str]:
    """Return the known names most similar to a mistyped one, closest first."""
    return difflib.get_close_matches(name[:80], list(known), n=count, cutoff=cutoff)


def unknown(kind: str, name: str, known: Collection[str], further: str = "") -> str:
    """Return `unknown network 'x'; did you mean y?`, or the known names if none is similar.

    `further` names other accepted values, or where all names are listed. The name is cut to 80 characters.
    """
    close = close_names(name, known)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(known) <= 3 * SHOWN:
        hint = f"known: {', '.join(known)}"
    else:
        hint = "no name is similar"
    return f"unknown {kind} {name[:80]!r}; {hint}" + (f" ({further})" if further else "")


_WITHOUT_VALUE = {"missing": "is missing", "extra_forbidden": "is not a field"}


def first_problem(error: ValidationError, whole: str = "") -> str:
    """Return the first problem of a validation, such as `field.inner = value: should be …`.

    `whole` names the document, used where no single field is at fault.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    place, value = ".".join(map(str, first["loc"])), first["input"]
    if place and first["type"] in _WITHOUT_VALUE:
        return f"{place} {_WITHOUT_VALUE[first['type']]}"
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if place and isinstance(value, str | int | float):
        place += f" = {value!r:.40}"
    return f"{place or whole}: {reason}" if place or whole else reason
