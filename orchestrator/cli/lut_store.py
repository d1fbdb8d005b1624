"""Options that name LUTs and the folders they are in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.store import LutStore, lut_store
from orchestrator.cli.output import say

LutsOption = Annotated[Path | None, typer.Option("--luts", help="Additional LUT folder, searched first.")]
LutArgument = Annotated[
    str,
    typer.Argument(
        help=r"Folder, device/space/variant\[/vN], or parts of that which fit one LUT; without a version the "
        "pinned one, else the newest."
    ),
]


def open_store(luts: Path | None, *, made: bool = False) -> LutStore:
    """Return the LUTs of `--luts`, then the user's, then the package's; warnings go to stderr.

    Args:
        luts: The folder of the option.
        made: Whether a LUT will be written, so that the folder need not exist.

    Raises:
        UsageError: the folder does not exist.
    """
    if luts is not None and not luts.is_dir() and (luts.exists() or not made):
        raise UsageError(
            f"--luts {luts}: not a folder; give one that holds device/space/variant/vN",
            code="not_a_lut_folder",
        )
    return lut_store(luts, warn)


def warn(note: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {note}")
