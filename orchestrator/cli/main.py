"""Entry point of `bench`: commands, and one line and an exit code for every expected error."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import ValidationError

from luts.format.errors import OUT_OF_MEMORY, BlocktimeError, first_problem, is_out_of_memory
from luts.format.provenance import package_version
from orchestrator.cli import (
    agent,
    arch,
    blocks,
    breakdown,
    bundle,
    cache,
    compare,
    devices,
    doctor,
    export,
    fleet,
    lut,
    measure,
    native,
    profile,
    report,
    runs,
    search,
    sensitivity,
    space,
    train,
    validate,
)
from orchestrator.cli import eval as evaluation
from orchestrator.cli.exit_codes import INTERRUPTED, exit_code
from orchestrator.cli.output import say
from orchestrator.cli.stop import last_words
from search.spaces.plugins import load_plugins

OLD_SPELLINGS = {"out": "output", "picture": "output"}
"""Options that were called otherwise before; in no help."""

app = typer.Typer(
    name="bench",
    context_settings={"token_normalize_func": lambda name: OLD_SPELLINGS.get(name, name)},
    help="Milliseconds per building block of a mobile vision network, and the search that uses them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(space.app, name="space")
app.add_typer(arch.app, name="arch")
app.add_typer(lut.app, name="lut")
for module in (
    devices,
    doctor,
    native,
    cache,
    agent,
    export,
    profile,
    fleet,
    bundle,
    measure,
    compare,
    validate,
    blocks,
    breakdown,
    train,
    evaluation,
    sensitivity,
    search,
    report,
    runs,
):
    module.register(app)


ANYWHERE = "Anywhere: --debug shows the traceback of an error, --import FILE.py adds code of your own."
for group in (app, *(info.typer_instance for info in app.registered_groups if info.typer_instance)):
    for command in group.registered_commands:
        command.epilog = f"{command.epilog}\n\n{ANYWHERE}" if command.epilog else ANYWHERE


def _show_version(asked: bool) -> None:
    if asked:
        print(f"bench {package_version()}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="FILE.py|MODULE",
            help="Python file or module that registers spaces, blocks and more of your own; repeatable. "
            "May stand anywhere, like --debug.",
        ),
    ] = None,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of `bench` itself."""
    load_plugins(plugins or ())


def own_options_first(arguments: Sequence[str]) -> list[str]:
    """`--import X` and `--debug` moved from wherever they stand to the front, where `bench` itself takes them."""
    own: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--import":
            own += [argument, *itertools.islice(rest, 1)]
        else:
            (own if argument == "--debug" or argument.startswith("--import=") else others).append(argument)
    return own + others


def run() -> None:
    """Run the command line; an error is one line, and a traceback where `--debug` stands anywhere."""
    sys.argv[1:] = own_options_first(sys.argv[1:])
    debug = "--debug" in sys.argv
    try:
        app()
    except BlocktimeError as error:
        if debug:
            raise
        say(f"bench: {error}")
        sys.exit(exit_code(error))
    except SystemExit as end:
        if end.code == INTERRUPTED:
            words, code = last_words()
            say(f"bench: {words}")
            sys.exit(code)
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
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}; free some and run the same command to go on"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; correct that and run the same command again"
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    lines = str(error).strip().splitlines() or [""]
    what = first_problem(error, error.title) if isinstance(error, ValidationError) else lines[0]
    return f"unexpected {type(error).__name__}: {what}; run again with --debug and report it"
