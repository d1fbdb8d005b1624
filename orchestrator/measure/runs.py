"""Folders of measurement runs: one journal each, found again by what is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from luts.errors import BlocktimeError

_DONE = "result.txt"


@dataclass(frozen=True)
class Run:
    """One run's folder. It is done once its result stands beside the journal."""

    folder: Path

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.folder / "journal.jsonl"

    @property
    def result(self) -> str | None:
        """What the run ended in (for a profile the LUT's path), None while it is open."""
        try:
            return (self.folder / _DONE).read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def finish(self, result: str) -> None:
        """Mark the run as done."""
        try:
            (self.folder / _DONE).write_text(result + "\n", encoding="utf-8")
        except OSError as error:
            raise BlocktimeError(f"cannot write {self.folder / _DONE}: {error.strerror}") from error


def find_run(root: Path, label: str, *, fresh: bool = False, reuse: bool = False) -> Run:
    """The run to go on with: the newest of `label` if it is open (or, with `reuse`, done), else a new one.

    Args:
        root: Folder of all runs.
        label: Says what is measured; runs of one label are numbered.
        fresh: Begin a new run even where one is open.
        reuse: Return a finished run instead of beginning another.
    """
    if not re.fullmatch(r"[a-z0-9._-]{1,200}", label):
        raise ValueError(f"{label!r} cannot name a folder")
    numbers = [
        int(path.name.removeprefix(f"{label}-"))
        for path in root.glob(f"{label}-*")
        if path.name.removeprefix(f"{label}-").isdigit()
    ]
    newest = max(numbers, default=0)
    run = Run(root / f"{label}-{newest}")
    if newest and not fresh and (run.result is None or reuse):
        return run
    return Run(root / f"{label}-{newest + 1}")
