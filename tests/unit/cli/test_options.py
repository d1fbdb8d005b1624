"""Options classes: declared once, parameters of a command and the argument of its task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.options import with_options
from orchestrator.tasks.options import BUDGET, REQUIRED, argument, budget, option
from orchestrator.tasks.parsing import parse_resolutions
from tests.support.errors import raises


@dataclass(frozen=True, kw_only=True)
class Size:
    width: int = option(REQUIRED, "Width of the box.", minimum=1)
    height: int = option(2, "Height of the box.", flag="--tall", panel=BUDGET)


@dataclass(frozen=True, kw_only=True)
class Box:
    names: tuple[str, ...] = argument((), "Names.", metavar="NAME", flag="--name")
    size: Size = field(default_factory=lambda: Size(width=1))
    files: tuple[Path, ...] = option((), "Files to write.", flag="--output -o")
    resolutions: tuple[int, ...] | None = option(
        None, "Sides.", flag="--resolution", parse=parse_resolutions, shown="own"
    )
    budget_s: float = budget("2m")
    extra: str = "no option"


def run(options_class, *arguments):
    """The options a command gets, and the result of its run."""
    seen = []

    def command(*, options: Any, last: Annotated[bool, typer.Option()] = False):
        seen.append(options)

    command.__annotations__["options"] = options_class
    app = typer.Typer()
    app.command()(with_options(command))
    return seen, CliRunner().invoke(app, [*arguments])


def test_defaults_of_the_command_are_those_of_the_class():
    assert run(Box, "--width", "1")[0] == [Box(size=Size(width=1))]


def test_arguments_flags_and_groups_reach_the_options_object():
    text = "a --width 3 --tall 4 b -o x.csv -o y.csv --name c --resolution 256,192 --budget 90s --last"
    seen, result = run(Box, *text.split())
    assert result.exit_code == 0
    assert seen == [
        Box(
            names=("a", "b", "c"),
            size=Size(width=3, height=4),
            files=(Path("x.csv"), Path("y.csv")),
            resolutions=(192, 256),
            budget_s=90,
        )
    ]


@pytest.mark.parametrize("arguments", [["--width", "0"], [], ["--width", "1", "--wide"]])
def test_typer_refuses_bad_options(arguments):
    assert run(Box, *arguments)[1].exit_code == 2


def test_help_has_panels_defaults_and_no_hidden_option():
    shown = run(Box, "--help")[1].output
    for text in ("Budget", "[NAME]...", "[default: (2m)]", "[default: (own)]"):
        assert text in shown
    for text in ("--name", "None"):
        assert text not in shown


def test_an_argument_that_only_a_flag_gives():
    @dataclass(frozen=True)
    class One:
        name: str = argument(REQUIRED, "Name.", flag="--name")

    assert run(One, "--name", "a")[0] == run(One, "a")[0] == [One("a")]
    with raises("missing_argument"):
        raise run(One)[1].exception


def test_two_options_of_one_name_are_an_error_of_the_program():
    def command(width: int, *, size: Size):
        """Both ask for a width."""

    with pytest.raises(TypeError, match="width"):
        with_options(command)
