"""Blocks of options: declared once, standing in every command that takes them."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.options import with_blocks


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="Of the box.")]
    height: Annotated[int, typer.Option("--tall")] = 2


def app_of(command):
    app = typer.Typer()
    app.command()(with_blocks(command))
    return app


def test_a_block_is_options_in_its_place_and_a_value_in_the_command():
    seen = []

    def command(
        name: Annotated[str, typer.Option()] = "a",
        *,
        size: Size,
        last: Annotated[bool, typer.Option()] = False,
    ):
        seen.append((name, size, last))

    app = app_of(command)
    assert CliRunner().invoke(app, ["--width", "3", "--last"]).exit_code == 0
    assert CliRunner().invoke(app, ["--width", "4", "--tall", "5", "--name", "b"]).exit_code == 0
    assert seen == [("a", Size(3, 2), True), ("b", Size(4, 5), False)]
    told = CliRunner().invoke(app, ["--help"]).output
    assert [told.index(text) for text in ("--name", "--width", "--tall", "--last")] == sorted(
        told.index(text) for text in ("--name", "--width", "--tall", "--last")
    )


def test_what_typer_checks_is_checked_in_a_block():
    def command(*, size: Size):
        raise AssertionError

    assert CliRunner().invoke(app_of(command), ["--width", "0"]).exit_code == 2
    assert CliRunner().invoke(app_of(command), []).exit_code == 2


def test_two_options_of_one_name_are_an_error_of_the_program():
    def command(width: int, *, size: Size):
        """Both ask for a width."""

    with pytest.raises(TypeError, match="width"):
        with_blocks(command)
