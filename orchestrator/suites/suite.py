"""A suite: which networks a paper compares, how each is built here, and where the paper's figures of it are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luts.format.errors import UsageError
from luts.format.json_file import read_json
from luts.format.messages import unknown
from luts.published import PublishedRow, PublishedTable, load_published

MAX_BYTES = 64 * 1024
"""Largest file that is read; a suite of two dozen networks has 5 KiB."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9:@._-]{1,100}$")]


class Entry(BaseModel):
    """One network of a suite.

    Attributes:
        row: Its row in the published table, and its name in ours.
        kind: What it is made of: convolutions, a transformer, or both in turn.
        model: How `--model` names it: a network of ours, or `timm:NAME@PX`.
        figures: The published table.
        differs: How it differs from what the row says, and why; empty where it does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Annotated[str, Field(min_length=1, max_length=80)]
    kind: Literal["conv", "transformer", "hybrid"]
    model: Name
    figures: Name
    differs: Annotated[str, Field(max_length=300)] = ""

    @property
    def published(self) -> PublishedRow:
        """What the paper prints."""
        return self.table.find(self.row)

    @property
    def table(self) -> PublishedTable:
        """The table that it prints it in."""
        return load_published(self.figures)


class Suite(BaseModel):
    """Networks to measure side by side; `reference` is the row that the others' latencies are ratios to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=200)]
    reference: str
    networks: Annotated[tuple[Entry, ...], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        rows = [entry.row for entry in self.networks]
        models = [entry.model for entry in self.networks]
        if len(set(rows)) != len(rows) or len(set(models)) != len(models):
            raise ValueError("a network is there twice")
        if self.reference not in rows:
            raise ValueError(f"the reference {self.reference!r} is none of the networks")
        return self

    @property
    def in_order(self) -> tuple[Entry, ...]:
        """The networks, the reference first."""
        return tuple(sorted(self.networks, key=lambda entry: entry.row != self.reference))


def list_suites() -> tuple[str, ...]:
    """Names of the suites that come with the package."""
    return tuple(sorted(path.stem for path in _root().glob("*.json")))


def load_suite(name: str) -> Suite:
    """The suite of a name.

    Raises:
        UsageError: there is none; names the known ones.
        InvalidArtifactError: its file is damaged.
    """
    if name not in list_suites():
        raise UsageError(unknown("suite", name, list_suites()))
    return read_json(_root() / f"{name}.json", Suite, MAX_BYTES, "restore it")


def _root() -> Path:
    return Path(__file__).parent
