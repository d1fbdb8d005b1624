"""Options of commands as frozen dataclasses, which tasks take as their argument.

A field made by `option` or `argument` says what it is called on the command line, what its help says and how its
text is parsed; a field whose type is another such class is a group of options. `orchestrator.cli.options` makes a
command's parameters from them. This module knows nothing of the command line's library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from luts.format.errors import UsageError
from luts.format.store import LutStore, lut_store
from orchestrator.tasks.parsing import parse_budget, parse_pace
from orchestrator.tasks.progress import Note, Progress

TARGET, NETWORKS, BUDGET, SEARCH = "Target", "Networks", "Budget", "Search"
TRAINING, OUTPUT, ADVANCED = "Training", "Output", "Advanced"
PANELS = ("", TARGET, NETWORKS, BUDGET, SEARCH, TRAINING, OUTPUT, ADVANCED)
"""Panels of a command's help, in their order; any others stand next to `SEARCH`."""

REQUIRED: Any = dataclasses.MISSING
"""Default of an option that must be given."""

Parser = Callable[[str, str], Any]
"""Turns the text of an option, and the option's flag for the error message, into its value; raises UsageError."""


@dataclass(frozen=True)
class CommandOption:
    """How a field appears on the command line.

    Attributes:
        help: Help text, a sentence.
        flags: Flags of the option (`--runs`, `-n`), those of an argument's hidden alternative; by default the
            field's name.
        panel: Panel of the help.
        shown: Text of the default in the help, where the value itself would not say it.
        metavar: What to type, in the help.
        minimum: Smallest value that is accepted.
        maximum: Largest value that is accepted.
        parse: Makes the value of the text; without it the field's type decides.
        repeated: Whether the command line collects several texts, whatever the field's type is.
        argument: Whether it is positional.
        hidden: Whether the help leaves it out.
    """

    help: str
    flags: tuple[str, ...] = ()
    panel: str = ""
    shown: str = ""
    metavar: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    parse: Parser | None = None
    repeated: bool = False
    argument: bool = False
    hidden: bool = False


def option(default: Any, help_text: str, *, flag: str = "", **how: Any) -> Any:
    """Declare a field of an options class as an option of the command.

    Args:
        default: The field's value where the option is not given; REQUIRED if there is none.
        help_text: A sentence.
        flag: One or more flags with spaces between, such as `--count -n`; `--` and the field's name by default.
        how: Other attributes of `CommandOption`.
    """
    metadata = {"option": CommandOption(help_text, tuple(flag.split()), **how)}
    return dataclasses.field(default=default, metadata=metadata)


target_option = partial(option, panel=TARGET)
network_option = partial(option, panel=NETWORKS)
budget_option = partial(option, panel=BUDGET)
training_option = partial(option, panel=TRAINING)
output_option = partial(option, panel=OUTPUT)
advanced_option = partial(option, panel=ADVANCED)


def argument(default: Any, help_text: str, *, flag: str = "", **how: Any) -> Any:
    """Declare a field as a positional argument; with `flag`, hidden options add to it or give it too."""
    return option(default, help_text, flag=flag, argument=True, **how)


@dataclass(frozen=True)
class OptionField:
    """A field of an options class; `info` is None for a nested group and for what no option sets."""

    name: str
    type: Any
    default: Any
    info: CommandOption | None

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the option, `--` and the field's name by default."""
        return (self.info.flags if self.info else ()) or (f"--{self.name.replace('_', '-')}",)

    @property
    def is_repeated(self) -> bool:
        """Whether the command line collects several values."""
        several = get_origin(self.type) is tuple and not (self.info and self.info.parse)
        return several or bool(self.info and self.info.repeated)


def option_fields(options: type) -> Iterator[OptionField]:
    """Yield the fields of an options class in their order."""
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        yield OptionField(field.name, types[field.name], field.default, field.metadata.get("option"))


def budget(default: str) -> Any:
    """Declare `budget_s`, the seconds after which no new pass starts, as `--budget`."""
    return budget_option(
        parse_budget(default),
        "Time after which no new pass starts: 90s, 15m or 2h.",
        flag="--budget",
        parse=parse_budget,
        shown=default,
        metavar="TIME",
    )


def artifact_option() -> Any:
    """Declare `files`, models that are exported already: `.pte`, or `.mlpackage`, a folder."""
    return network_option((), "Model file (.pte) or .mlpackage folder; repeatable.", flag="--artifact")


def keep_fp32_option(panel: str = NETWORKS) -> Any:
    """Declare `keep_fp32`, what stays fp32 in mixed precision (`orchestrator.tasks.quantization.stays_fp32`)."""
    return option(
        (),
        "What --precision mixed keeps in fp32: block positions (4), module paths (blocks.2), or the file that "
        "bench sensitivity wrote; repeatable.",
        flag="--keep-fp32",
        metavar="BLOCK",
        panel=panel,
    )


def resolution_option() -> Any:
    """Declare `resolution`, the side of the input image of all networks."""
    return network_option(None, "Side of the input image in pixels.", minimum=1, shown="the network's own")


def self_test_option() -> Any:
    """Declare `self_test`, whether a self-test for interference between models runs first."""
    return advanced_option(
        True, "Run a short interference self-test first (a few seconds).", flag="--self-test/--no-self-test"
    )


def pace_option() -> Any:
    """Declare `pace_us`, the microseconds between the starts of calls, as `--pace`."""
    return advanced_option(
        0,
        "Calls per second, such as 30/s, as an app would make them.",
        flag="--pace",
        parse=parse_pace,
        shown="back to back",
        metavar="RATE",
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How models are exported."""

    workers: int | None = advanced_option(
        None, "Processes that export models.", minimum=1, shown="one per core"
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(ExportOptions):
    """How long models are measured."""

    budget_s: float = budget("2m")
    seed: int = advanced_option(0, "Random seed of the measuring schedule.")
    self_test: bool = self_test_option()


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(ScheduleOptions):
    """How long, and at which pace models are measured."""

    pace_us: int = pace_option()


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where LUTs are read from, and written to; programs may give an open `store` instead."""

    luts: Path | None = option(None, "Additional LUT folder, searched first.", panel=ADVANCED)
    store: LutStore | None = None

    def open_store(self, progress: Progress, *, create: bool = False) -> LutStore:
        """Return the LUTs of this folder, then the user's, then the package's.

        Args:
            progress: Gets warnings about LUTs.
            create: Whether a LUT will be written, so that the folder need not exist.

        Raises:
            UsageError: the folder does not exist.
        """
        if self.store is not None:
            return self.store
        if self.luts is not None and not self.luts.is_dir() and (self.luts.exists() or not create):
            raise UsageError(
                f"--luts {self.luts}: not a folder; give one that holds device/space/variant/vN",
                code="not_a_lut_folder",
            )
        return lut_store(self.luts, lambda note: progress(Note(f"warning: {note}")))


@dataclass(frozen=True, kw_only=True)
class LutOptions(StoreOptions):
    """A LUT of this machine."""

    lut: str = argument(
        REQUIRED,
        r"Folder, device/space/variant\[/vN], or parts of that which fit one LUT; without a version the "
        "pinned one, else the newest.",
        metavar="LUT",
    )
