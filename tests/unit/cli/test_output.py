"""Results are printed, written and drawn; messages on stderr appear once."""

import io
import json
from typing import ClassVar

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from luts.format.errors import BlocktimeError
from luts.format.table import DrawnResult
from orchestrator.cli import output
from tests.support.errors import raises


class _Interrupted(io.StringIO):
    """A stderr whose reader presses Ctrl-C as soon as it has read the first line."""

    def flush(self) -> None:
        if self.getvalue() == "listening\n":
            self.write("^C\n")
            raise KeyboardInterrupt


def test_a_line_that_ctrl_c_follows_at_once_is_not_stated_again(monkeypatch):
    stderr = _Interrupted()
    monkeypatch.setattr(output, "_err", Console(file=stderr))
    with pytest.raises(KeyboardInterrupt):
        output.say("listening")
    output.say("ended")
    assert stderr.getvalue() == "listening\n^C\nended\n"


class Incomplete(DrawnResult):
    default_pictures: ClassVar[tuple[str, ...]] = ("own.png",)

    def __init__(self, folder):
        self.folder = folder

    def to_dict(self):
        return {"rows": [{"a": 1, "b": [2]}, {"a": 3, "c": 4}]}

    def report(self):
        yield "a line"

    def draw(self):
        return Figure(figsize=(1, 1))

    def check(self):
        raise BlocktimeError("a part is missing; measure it again", code="incomplete")


def test_an_incomplete_result_is_written_drawn_and_printed_before_its_error(tmp_path, capsys):
    table = tmp_path / "rows.csv"
    with raises("incomplete"):
        output.deliver(Incomplete(tmp_path), [table], as_json=True, rows="rows")
    assert table.read_text() == "a,b,c\n1,[2],\n3,,4\n"
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out)["pictures"] == [str(tmp_path / "own.png")]


def test_a_named_picture_replaces_the_result_s_own(tmp_path):
    with raises("incomplete"):
        output.deliver(Incomplete(tmp_path), [tmp_path / "mine.svg"], as_json=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]
