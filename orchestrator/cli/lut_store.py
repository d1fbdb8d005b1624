"""Where a command looks for LUTs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.store import LutStore, lut_store
from orchestrator.cli.output import say

LutsOption = Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs, looked at first.")]
LutArgument = Annotated[
    str,
    typer.Argument(
        help=r"Folder, device/space/variant\[/vN], or any parts of it that name one LUT; without a version "
        "the pinned one, else the one that predicts best."
    ),
]


def open_store(luts: Path | None, *, made: bool = False) -> LutStore:
    """The LUTs of `--luts` before the user's and the package's; tells where a name's newest version is not taken.

    Args:
        luts: The option.
        made: Whether the folder is made where there is none, since a LUT is written there.

    Raises:
        UsageError: there is no such folder.
    """
    if luts is not None and not luts.is_dir() and (luts.exists() or not made):
        raise UsageError(f"--luts {luts}: not a folder; give one that holds device/space/variant/vN")
    return lut_store(luts, tell)


def tell(note: str) -> None:
    """A warning about a LUT."""
    say(f"warning: {note}")
