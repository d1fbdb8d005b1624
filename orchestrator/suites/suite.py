"""Suites: networks that a paper compares, and how each is built here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from luts.format.errors import UsageError, unknown
from luts.format.files import read_json
from luts.format.schema import FrozenModel
from luts.published import PublishedRow, PublishedTable, load_published

_ROOT = Path(__file__).parent

MAX_BYTES = 64 * 1024
"""Largest suite file; a suite of three dozen networks has 6 KiB."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9:@._-]{1,100}$")]


class SuiteEntry(FrozenModel):
    """One network of a suite.

    Attributes:
        row: Its row in the published table, which is also its name here.
        model: Its name for `--model`: a named network, or `timm:NAME@PX`.
        figures: Name of the published table.
        differs: How it differs from the published network, and why; empty if it does not.
    """

    row: Annotated[str, Field(min_length=1, max_length=80)]
    kind: Literal["conv", "transformer", "hybrid", "mlp"]
    model: Name
    figures: Name
    differs: Annotated[str, Field(max_length=300)] = ""

    @property
    def published(self) -> PublishedRow:
        """The row of the published table."""
        return self.table.find(self.row)

    @property
    def table(self) -> PublishedTable:
        """The published table."""
        return load_published(self.figures)


class Suite(FrozenModel):
    """Networks to measure together; `reference` is the row that the others' latencies are ratios to."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    reference: str
    networks: Annotated[tuple[SuiteEntry, ...], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        rows = [entry.row for entry in self.networks]
        models = [entry.model for entry in self.networks]
        if len(set(rows)) != len(rows) or len(set(models)) != len(models):
            raise ValueError("a network is listed twice")
        if self.reference not in rows:
            raise ValueError(f"the reference {self.reference!r} is not one of the networks")
        return self


def list_suites() -> tuple[str, ...]:
    """Return the names of the packaged suites."""
    return tuple(sorted(path.stem for path in _ROOT.glob("*.json")))


def load_suite(name: str) -> Suite:
    """Load a packaged suite.

    Raises:
        UsageError: unknown suite; the message names similar ones.
        InvalidArtifactError: its file is damaged.
    """
    if name not in list_suites():
        raise UsageError(unknown("suite", name, list_suites()), code="unknown_suite")
    return read_json(_ROOT / f"{name}.json", Suite, MAX_BYTES, "restore it")
