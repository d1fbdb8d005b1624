"""Figures that papers print, kept beside our measurements and never among them.

A file under `luts/reference/` holds one table of a paper. It has no samples, no device of ours and no version, and
its schema shares no field with `lut.json`: no LUT can be made of it, and no LUT can be read as one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_json

MAX_BYTES = 64 * 1024
"""Largest file that is read; a table of twenty rows has 3 KiB."""

Text = Annotated[str, Field(min_length=1, max_length=500)]
Figure = Annotated[float, Field(gt=0, lt=1e6)]


class PublishedRow(BaseModel):
    """One network as the paper's table has it; None where the table has a dash.

    Attributes:
        row: Its name in the table.
        params_m: Parameters in millions.
        flops_g: What the paper calls FLOPs, in thousand millions; most count a multiply-accumulate as one.
        top1_percent: Accuracy on ImageNet.
        latency_ms: Milliseconds on the table's device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Text
    params_m: Figure | None
    flops_g: Figure | None
    top1_percent: Annotated[float, Field(gt=0, le=100)] | None
    latency_ms: Figure | None


class PublishedTable(BaseModel):
    """A paper's table with its source. `latency_device` is None where it has no latency on a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["blocktime-published-figures/1"]
    label: Literal["published"]
    title: Text
    paper: Text
    table: Text
    latency_device: Text | None
    note: Text
    rows: Annotated[tuple[PublishedRow, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _consistent(self) -> PublishedTable:
        names = [row.row for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError("a row is there twice")
        if self.latency_device is None and any(row.latency_ms is not None for row in self.rows):
            raise ValueError("a latency without the device that it was measured on")
        return self

    def find(self, row: str) -> PublishedRow:
        """The row of a name; InvalidArtifactError where the table has none."""
        for one in self.rows:
            if one.row == row:
                return one
        raise InvalidArtifactError(
            f"{self.title} ({self.table}) has no row {row!r}; correct the suite's file"
        )


def reference_root() -> Path:
    """Folder of the tables that come with the package."""
    return Path(__file__).parent / "reference"


def load_published(name: str, root: Path | None = None) -> PublishedTable:
    """The table of a name, e.g. `autovit-table2`.

    Raises:
        UsageError: there is none; the known ones are named.
        InvalidArtifactError: the file is damaged, too large or not such a table.
    """
    folder = root or reference_root()
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name not in known:
        raise UsageError(f"no published table {name[:80]!r}; there are {', '.join(known)}")
    return read_json(folder / f"{name}.json", PublishedTable, MAX_BYTES, "restore it")
