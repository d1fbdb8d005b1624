"""Files that a command writes beside what it prints: looked at before anything is computed, written at the end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.files import check_writable, write_text

TABLES = (".json", ".csv")


def output_files(given: Sequence[Path] | None, suffixes: Collection[str]) -> list[Path]:
    """The files of `--output`, each once.

    Raises:
        UsageError: one ends otherwise, or is the standard output.
        StorageError: one can't be written there.
    """
    files = list(dict.fromkeys(given or ()))
    for file in files:
        if str(file) == "-":
            raise UsageError("--output -: only --json writes to the standard output")
        if file.suffix not in suffixes:
            raise UsageError(f"--output {file}: expected a name that ends in {' or '.join(suffixes)}")
        check_writable(file)
    return files


def write_table(file: Path, document: dict[str, Any], rows: str = "") -> None:
    """The whole document as JSON, or its list `rows` as CSV."""
    if file.suffix == ".json":
        write_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, next(iter(document[rows]), ()), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in document[rows])
    write_text(file, text.getvalue())


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
