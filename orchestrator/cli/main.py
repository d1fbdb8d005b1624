"""Entry point of `bench`: commands, and one line and an exit code for every expected error."""

from __future__ import annotations

import errno
import os
import sys

import typer

from luts.errors import BlocktimeError
from orchestrator.cli import (
    agent,
    blocks,
    breakdown,
    devices,
    exporting,
    lut,
    measuring,
    profile,
    report,
    searching,
    spaces,
    training,
    validating,
)
from orchestrator.cli.output import say

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect it; typer turns KeyboardInterrupt into it."""

app = typer.Typer(
    name="bench",
    help="Milliseconds per building block of a mobile vision network, and the search that uses them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(spaces.space_app, name="space")
app.add_typer(spaces.arch_app, name="arch")
app.add_typer(lut.app, name="lut")
for module in (
    devices,
    agent,
    exporting,
    profile,
    measuring,
    validating,
    blocks,
    breakdown,
    training,
    searching,
    report,
):
    module.register(app)


def run() -> None:
    """Run the command line; `--debug` anywhere shows the traceback of an error."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except BlocktimeError as error:
        if debug:
            raise
        say(f"bench: {error}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            say("bench: interrupted; what is done is kept, run the same command to go on")
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        say(f"bench: {_unexpected(error)}")
        sys.exit(1)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk ({error.filename}); free some and run the same command to go on"
    if isinstance(error, MemoryError):
        return (
            "out of memory; close other programs or use fewer --workers, then run the same command to go on"
        )
    first = str(error).strip().splitlines() or [""]
    return f"unexpected {type(error).__name__}: {first[0]}; run again with --debug and report it"
