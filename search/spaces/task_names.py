"""Names of networks and spaces with a head of another task: `NAME.ssdlite`, with 10 classes `NAME.ssdlite10`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import search.spaces.task_heads  # noqa: F401 - registers them
from search.spaces.family import task_heads

_NAME = re.compile(r"(?P<base>.+)\.(?P<head>[a-z]+)(?P<classes>[1-9][0-9]{0,4})?(?P<side>@[1-9][0-9]{0,3})?")


@dataclass(frozen=True)
class TaskName:
    """A name in parts: the backbone's, with `@PX` where the whole has it, the head's, and classes where given."""

    base: str
    head: str
    classes: int | None

    @classmethod
    def parse(cls, name: str) -> TaskName | None:
        """None for a name that does not end in a task's head."""
        match = _NAME.fullmatch(name) if len(name) <= 120 else None
        if match is None or match["head"] not in task_heads():
            return None
        classes = int(match["classes"]) if match["classes"] else None
        return cls(match["base"] + (match["side"] or ""), match["head"], classes)


def task_name(base: str, head: str, classes: int | None = None) -> str:
    """The inverse of `TaskName.parse`."""
    name, at, side = base.partition("@")
    return f"{name}.{head}{classes or ''}{at}{side}"
