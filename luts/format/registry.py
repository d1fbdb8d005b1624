"""Items by name, to which a plugin adds its own.

Strategies, objectives, block kinds, stages, heads, spaces.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Generic, TypeVar

from luts.format.errors import UsageError, unknown

Item = TypeVar("Item")
Registered = TypeVar("Registered")

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names of registered items: they also name folders and options."""


class Registry(Generic[Item]):
    """Items of one kind by name; plugins register theirs in the same way as the package does.

    Attributes:
        kind: What one item is called in messages.
        items: The items by name, in the order of registration.
    """

    def __init__(self, kind: str, load_plugins: Callable[[], object] | None = None):
        """Create an empty registry; `load_plugins`, called before every look-up, registers plugins' items."""
        self.kind = kind
        self.items: dict[str, Item] = {}
        self._load_plugins = load_plugins

    def add(self, name: str, item: Item) -> None:
        """Register an item; raises UsageError if its name is not valid, or another item has it."""
        if not re.fullmatch(NAME, name):
            raise UsageError(
                f"{name[:80]!r} is not a valid name; use at most 64 of a-z, 0-9, ., _ and -",
                code="invalid_name",
            )
        if name in self.items:
            raise UsageError(
                f"{self.kind} {name!r} is registered twice: {_location(self.items[name])} and "
                f"{_location(item)}; use another name",
                code="name_taken",
            )
        self.items[name] = item

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Return a decorator that registers a function or class under this name."""

        def decorate(item: Registered) -> Registered:
            self.add(name, item)  # type: ignore[arg-type]
            return item

        return decorate

    def get(self, name: str) -> Item:
        """Return the item with this name; raise `UsageError` with similar names if there is none."""
        names = self.names()
        if name not in self.items:
            raise UsageError(unknown(self.kind, name, names), code=f"unknown_{self.kind.replace(' ', '_')}")
        return self.items[name]

    def names(self) -> tuple[str, ...]:
        """Return all names, the package's first."""
        if self._load_plugins is not None:
            self._load_plugins()
        return tuple(self.items)

    def __contains__(self, name: str) -> bool:
        """Whether an item has this name."""
        return name in self.names()


def _location(item: object) -> str:
    name = f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
    try:
        return f"{name} ({inspect.getsourcefile(item)})"  # type: ignore[arg-type]
    except TypeError:
        return name
