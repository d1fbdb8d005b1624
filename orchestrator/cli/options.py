"""Typer commands from tasks and their options classes (`orchestrator.tasks.options`)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from luts.format.errors import UsageError
from luts.format.store import LutStore
from luts.format.table import Result
from orchestrator.cli.output import TABLES, JsonOption, ask, deliver, output_files, output_option, say, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.options import PANELS, SEARCH, CommandOption, OptionField, StoreOptions, option_fields
from orchestrator.tasks.progress import Progress

PROVIDED: Mapping[str, Any] = {"say": say, "ask": ask}
"""What the command line gives to fields that are no options, by their names."""

_BY_FLAG = "_by_flag"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def example(*commands: str) -> str:
    """Return the end of a command's help: examples, a line each."""
    return "\n\n".join(
        ["Example:" if len(commands) == 1 else "Examples:", *(f"  {line}" for line in commands)]
    )


def open_store(options: StoreOptions, *, create: bool = False) -> LutStore:
    """Return the LUTs that the options name; warnings go to stderr.

    Raises:
        UsageError: the folder of `--luts` does not exist.
    """
    return options.open_store(lambda event: say(str(event)), create=create)


def add_command(
    app: typer.Typer,
    name: str,
    task: Callable[[Any, Progress], Result | list[Any] | str],
    *examples: str,
    rows: str = "",
    pictures: Sequence[str] = (),
) -> None:
    """Add the command of a task: it runs the task and prints the result.

    The command's parameters are the fields of the task's options class, its help is that class's docstring. With
    `rows` or `pictures` it has `--output`.

    Args:
        app: Gets the command.
        name: Name of the command.
        task: Takes its options and a progress; returns a result, several, or text, which has no `--json`.
        examples: Calls, for the end of the help.
        rows: List of the result's JSON document that a .csv file gets.
        pictures: Suffixes of pictures that the result draws.
    """
    hints = get_type_hints(task)
    tables = TABLES if rows else (".json",) if pictures else ()

    def run(options: Any, output: list[Path] | None = None, as_json: bool = False) -> None:
        files = output_files(output, (*pictures, *tables))
        with shown_progress() as progress:
            result = task(options, progress)
        if isinstance(result, str):
            print(result)
        elif isinstance(result, list):
            show(result, as_json)
        else:
            deliver(result, files, as_json, rows)

    annotations: dict[str, Any] = {"options": hints["options"]}
    if tables:
        annotations["output"] = output_option((*pictures, *tables))
    if hints["return"] is not str:
        annotations["as_json"] = JsonOption
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            _keyword(each, {"output": None, "as_json": False}.get(each, dataclasses.MISSING), annotation)
            for each, annotation in annotations.items()
        ]
    )
    run.__annotations__, run.__doc__ = annotations, hints["options"].__doc__
    app.command(name, epilog=example(*examples) if examples else None)(with_options(run))


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with one Typer parameter for every field of its options classes.

    Parameters whose type is a dataclass are replaced by parameters for its fields
    (`orchestrator.tasks.options`); the command gets the instances. The help lists options in the order of the
    panels, then of the parameters.

    Raises:
        TypeError: two options have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: hints[name] for name in signature.parameters if dataclasses.is_dataclass(hints[name])}
    parameters: dict[str, inspect.Parameter] = {}
    for name, own in signature.parameters.items():
        single = [own.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)]
        for parameter in _parameters(hints[name]) if name in groups else single:
            if parameter.name in parameters:
                raise TypeError(f"{command.__name__} has two options named {parameter.name}")
            parameters[parameter.name] = parameter

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        values = {name: _instance(group, given) for name, group in groups.items()}
        command(**given, **values)

    ordered = sorted(parameters.values(), key=_panel_rank)
    expanded.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    return expanded


def _panel_rank(parameter: inspect.Parameter) -> int:
    metadata = getattr(parameter.annotation, "__metadata__", ())
    panel = next((getattr(how, "rich_help_panel", None) for how in metadata), None) or ""
    return PANELS.index(panel if panel in PANELS else SEARCH)


def _parameters(options: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each field; keyword-only, since a required one may follow a default."""
    for field in option_fields(options):
        if field.info is not None:
            yield from _typer_parameters(field, field.info)
        elif dataclasses.is_dataclass(field.type):
            yield from _parameters(field.type)


def _typer_parameters(field: OptionField, info: CommandOption) -> Iterator[inspect.Parameter]:
    repeated, required = field.is_repeated, field.default is dataclasses.MISSING
    if info.parse is not None:
        typed: Any = str if required else str | None
    elif repeated:
        typed = list[str if info.repeated else get_args(field.type)[0]] | None  # type: ignore[misc]
    else:
        typed = field.type
    by_text = info.parse is not None or repeated
    inner = next((part for part in get_args(field.type) if part in _METAVARS), field.type)
    common: dict[str, Any] = {
        "help": info.help,
        "metavar": info.metavar or _METAVARS.get(inner),
        "show_default": info.shown or not (by_text or field.default in (None, (), "", False)),
        "min": info.minimum,
        "max": info.maximum,
    }
    default = dataclasses.MISSING if required else None if by_text else field.default
    if not info.argument:
        how = typer.Option(*field.flags, rich_help_panel=info.panel or None, hidden=info.hidden, **common)
        yield _keyword(field.name, default, Annotated[typed, how])
        return
    if info.flags:  # the hidden option can replace the argument, so that neither is required
        typed = typed if not required or repeated else typed | None
        default = None if required else default
        yield _keyword(field.name + _BY_FLAG, None, Annotated[typed, typer.Option(*info.flags, hidden=True)])
    yield _keyword(field.name, default, Annotated[typed, typer.Argument(**common)])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _instance(options: Any, given: dict[str, Any]) -> Any:
    """Make an options object of the parsed parameters, which are taken out of `given`."""
    values: dict[str, Any] = {}
    for field in option_fields(options):
        if field.info is not None:
            values[field.name] = _value(field, field.info, given)
        elif dataclasses.is_dataclass(field.type):
            values[field.name] = _instance(field.type, given)
        elif field.name in PROVIDED:
            values[field.name] = PROVIDED[field.name]
    return options(**values)


def _value(field: OptionField, info: CommandOption, given: dict[str, Any]) -> Any:
    value, by_flag = given.pop(field.name), given.pop(field.name + _BY_FLAG, None)
    if field.is_repeated:
        return tuple(value or ()) + tuple(by_flag or ())
    value = by_flag if value is None else value
    if value is None and field.default is dataclasses.MISSING:
        raise UsageError(f"missing argument {info.metavar or field.name.upper()}", code="missing_argument")
    if info.parse is None:
        return value
    return field.default if value is None else info.parse(value, field.flags[0])
