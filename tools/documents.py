"""Sections of a document that commands write: each between its two markers, whatever stands around them."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import psutil


def stamp(command: str) -> str:
    """What wrote a section, when and where."""
    machine = f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores"
    return f"`{command}`, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine}"


def write_section(document: Path, name: str, body: str) -> None:
    """Put `body` between `<!-- begin name -->` and `<!-- end name -->`; a new section goes to the document's end.

    Raises:
        ValueError: one of the markers stands there without the other.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if opened and not closed:
        raise ValueError(f"{document}: {begin} without {end}; add it where the section ends")
    if not opened:
        before = f"{text.rstrip()}\n\n" if text else ""
        after = "\n"
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"{before}{begin}\n{body.strip()}\n{end}{after}", encoding="utf-8")
