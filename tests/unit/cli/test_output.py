"""Messages on stderr appear once."""

import io

import pytest
from rich.console import Console

from orchestrator.cli import output


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
