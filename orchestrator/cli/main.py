"""The command line `bench`: loads the command that is called; every expected error is one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import inspect
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from luts.format.errors import OUT_OF_MEMORY, BlocktimeError, UsageError, first_problem, is_out_of_memory
from orchestrator.cli.commands import COMMANDS, MOVED, MOVED_COMMANDS, root_help

OLD_SPELLINGS = {"out": "output", "picture": "output", "fp32": "keep-fp32"}
"""Former names of options, which are still accepted."""

ANYWHERE = (
    "With any command: --debug shows the traceback of an error, --import FILE.py adds code of your own."
)


def load_command(name: str) -> Any:
    """Import the module of a command, or of a group such as `bench lut`, and return it."""
    module = importlib.import_module(f"orchestrator.cli.{COMMANDS[name].module}")
    if hasattr(module, "register"):
        application = typer.Typer()
        module.register(application)
        command = typer.main.get_group(application).commands[name]
    else:
        command = typer.main.get_group(module.app)
        command.name = name
    for inner in (command, *getattr(command, "commands", {}).values()):
        _complete_help(inner)
    return command


def _complete_help(command: Any) -> None:
    """Make the help of a command or group readable in a terminal.

    Lines of a paragraph are joined, described defaults are printed without parentheses, flags without a type, and
    the modes of a command are listed at its end.
    """
    command.help = "\n\n".join(
        " ".join(text.split()) for text in inspect.cleandoc(command.help or "").split("\n\n")
    )
    for parameter in command.params:
        if isinstance(parameter.show_default, str):
            parameter.help = f"{parameter.help or ''} \\[default: {parameter.show_default}]"
            parameter.show_default = False
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    if hasattr(command, "commands"):
        return
    modes = [
        f"  bench {name}: {info.summary}"
        for name, info in COMMANDS.items()
        if name.startswith(f"{command.name} ")
    ]
    command.epilog = "\n\n".join(
        filter(None, [command.epilog, *(["More commands:", *modes] if modes else []), ANYWHERE])
    )


class BenchGroup(TyperGroup):
    """`bench` itself: commands are imported on use, and a mode of a command is named by a second word."""

    def __init__(self, **settings: Any) -> None:
        """Pass Typer's settings on; the names of the commands are those that it suggests for a misspelt one."""
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # `get_command` imports them

    def list_commands(self, _context: Any) -> list[str]:
        """Return all names."""
        return list(COMMANDS)

    def get_command(self, _context: Any, name: str) -> Any:
        """Return a command, None if there is none of this name."""
        return load_command(name) if name in COMMANDS else None

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        """Return the command that arguments begin with.

        Raises:
            UsageError: a command or option that has another name now.
        """
        words = " ".join(args[:2])
        for name in (args[0], words):
            if new := MOVED_COMMANDS.get(name):
                raise UsageError(f"bench {name} is now {new}", code="moved_command")
        if words in COMMANDS:
            args = [words, *args[2:]]
        if args:
            _refuse_moved_options(*args)
        return super().resolve_command(context, args)

    def format_help(self, _context: Any, _formatter: Any) -> None:
        """Print the help from the static table of commands."""
        print(root_help())


def _refuse_moved_options(command: str, *arguments: str) -> None:
    """Raise UsageError for an option that has become a command of its own."""
    moved = MOVED.get(command, {})
    for flag, value in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, _, own_value = flag.partition("=")
        first_value = (own_value or value).partition(",")[0]
        for given in (flag, f"{flag} {first_value}"):
            if given in moved:
                raise UsageError(
                    f"bench {command} {given} is a command of its own now: {moved[given]}",
                    code="moved_option",
                )


app = typer.Typer(
    name="bench",
    cls=BenchGroup,
    context_settings={"token_normalize_func": lambda name: OLD_SPELLINGS.get(name, name)},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"bench {version('blocktime')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--import", metavar="FILE.py|MODULE", help="Python file or module with code of your own."
        ),
    ] = None,
    _debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Options of `bench` itself."""
    if plugins:
        from search.spaces.plugins import load_plugins

        load_plugins(plugins)


def own_options_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--import X` and `--debug`, which may stand anywhere, moved to the front."""
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
    """Run the command line; an error prints one line, with `--debug` a traceback."""
    sys.argv[1:] = own_options_first(sys.argv[1:])
    debug = "--debug" in sys.argv
    try:
        app()
    except BlocktimeError as error:
        if debug:
            raise
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        print(f"bench: {_unexpected(error)}", file=sys.stderr)
        sys.exit(1)


def exit_code(error: BlocktimeError) -> int:
    """Return 4 for a rejected measurement, 5 for infeasible constraints, else what agents exit with."""
    from orchestrator.journal.records import MeasurementRejectedError
    from orchestrator.wire import errors as wire
    from search.algorithms import InfeasibleError

    if isinstance(error, MeasurementRejectedError):
        return 4
    return 5 if isinstance(error, InfeasibleError) else wire.exit_code(error)


def _unexpected(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"no space left on the disk{where}; free some and run the same command to resume"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; correct that and run the same command again"
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    lines = str(error).strip().splitlines() or [""]
    what = first_problem(error, error.title) if isinstance(error, ValidationError) else lines[0]
    return f"unexpected {type(error).__name__}: {what}; run again with --debug and report it"
