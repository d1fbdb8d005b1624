"""What a user's code adds to a search, by name."""

from __future__ import annotations

import inspect
import re
from typing import Generic, TypeVar

from luts.format.errors import UsageError
from luts.format.messages import unknown
from search.algorithms.record.settings import NAME
from search.spaces.plugins import load_installed

Item = TypeVar("Item")


class Registry(Generic[Item]):
    """Things of one kind; those of the package are registered like a user's.

    Attributes:
        items: By name.
    """

    def __init__(self, kind: str):
        """`kind`: what one of them is called in messages."""
        self.kind = kind
        self.items: dict[str, Item] = {}

    def add(self, name: str, item: Item) -> None:
        """Make an item known.

        Raises:
            UsageError: the name can't be one, or another item has it; says where both are.
        """
        if not re.fullmatch(NAME, name):
            raise UsageError(f"{name[:80]!r} cannot be a name; take a-z, 0-9, dots and dashes, 64 at most")
        if name in self.items:
            raise UsageError(
                f"{self.kind} {name!r} is registered twice: {_place(self.items[name])} and {_place(item)}; "
                "take another name"
            )
        self.items[name] = item

    def get(self, name: str) -> Item:
        """The item of a name; `UsageError` with close names where there is none."""
        load_installed()
        if name not in self.items:
            raise UsageError(unknown(self.kind, name, self.names()))
        return self.items[name]

    def names(self) -> tuple[str, ...]:
        """All names, those of the package first."""
        load_installed()
        return tuple(self.items)


def _place(item: object) -> str:
    """`module.name (file)` of a class or a function."""
    name = f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
    try:
        return f"{name} ({inspect.getsourcefile(item)})"  # type: ignore[arg-type]
    except TypeError:
        return name
