"""What a section of docs/results.md says to type is what writes that section."""

import re
from pathlib import Path

import pytest

from tools.studies.__main__ import _command, _parser

DOCUMENT = Path(__file__).parents[3] / "docs" / "results.md"
STATED = re.findall(
    r"^`(python -m tools\.studies \S+ --[^`]+)`, 20", DOCUMENT.read_text(encoding="utf-8"), re.M
)


def test_there_are_such_commands():
    assert len(STATED) > 10


@pytest.mark.parametrize("command", STATED, ids=lambda command: command.split()[3])
def test_a_stated_command_is_what_the_study_would_state(command):
    arguments = command.removeprefix("python -m tools.studies ").split()
    assert _command(_parser().parse_args(arguments)) == command


def test_an_option_that_is_not_given_is_not_stated():
    given = _parser().parse_args(["inheritance", "--data", "cifar10:FILE", "--epochs", "4"])
    assert _command(given) == "python -m tools.studies inheritance --data cifar10:... --seeds 3 --epochs 4"
