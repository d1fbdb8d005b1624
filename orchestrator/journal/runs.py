"""Folders of measurement runs: one journal each, found by what is measured."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError
from luts.format.files import check_folder, data_folder, read_bytes, storage_errors, write_text

_DONE = "result.txt"
_NAMES = "models.json"
_MAX_NAMES_BYTES = 16 << 20
_ELSEWHERE = "set BLOCKTIME_RUNS to another folder"


def runs_root() -> Path:
    """Return the folder of measurement runs: $BLOCKTIME_RUNS, else `runs` in the user's data folder.

    Raises UsageError: it is a file. Raises StorageError: no permission to write there.
    """
    root = Path(os.environ.get("BLOCKTIME_RUNS") or data_folder() / "runs")
    check_folder(root, _ELSEWHERE)
    return root


@dataclass(frozen=True)
class Run:
    """A run's folder; it is done once its result is next to the journal."""

    folder: Path

    @property
    def journal(self) -> Path:
        """Path of the journal."""
        return self.folder / "journal.jsonl"

    @property
    def result(self) -> str | None:
        """Result of the run (for a profile the LUT's path); None while it is open."""
        try:
            return (self.folder / _DONE).read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def finish(self, result: str) -> None:
        """Mark the run as done."""
        with storage_errors(f"cannot write {self.folder / _DONE}", _ELSEWHERE):
            (self.folder / _DONE).write_text(result + "\n", encoding="utf-8")

    def name_models(self, names: Mapping[str, str]) -> None:
        """Store the names of the journal's model ids; raises StorageError."""
        write_text(self.folder / _NAMES, json.dumps(dict(names), indent=1) + "\n")

    def model_names(self) -> dict[str, str]:
        """Return names by id; empty if the run stored none. Raises InvalidArtifactError: other content."""
        path = self.folder / _NAMES
        if not path.exists():
            return {}
        content = read_bytes(path, _MAX_NAMES_BYTES, "remove it; ids are shown then")
        try:
            return TypeAdapter(dict[str, str]).validate_json(content)
        except ValidationError as error:
            raise InvalidArtifactError(
                f"{path} does not contain model names; remove it to show ids instead", code="invalid_file"
            ) from error


def find_run(root: Path, label: str, *, fresh: bool = False, reuse: bool = False) -> Run:
    """Return the newest run of `label` if it is open (or, with `reuse`, done), else a new one.

    `label` names what is measured; runs of one label are numbered. `fresh` starts a new run even if one is
    open.
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
