"""What tasks tell, and how a log shows it."""

from types import SimpleNamespace

import pytest

from orchestrator.cli import output
from orchestrator.cli.pace import Pace, duration
from orchestrator.tasks.progress import Note, Step, silent, steps


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(output, "say", lines.append)
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: 0.0))
    return lines


def test_events_are_text_so_that_print_is_a_progress(capsys):
    for event in (Step("exporting", 1, 3), Step("waiting"), Note("left out x")):
        print(event)
        silent(event)
    assert capsys.readouterr().out == "exporting (1/3)\nwaiting\nleft out x\n"


def test_a_log_has_a_line_for_each_step_and_tenth_and_every_note(said):
    with output.shown_progress() as progress:
        for done in range(1, 41):
            progress(Step("exporting", done, 40))
        progress(Note("40 exported"))
        steps(progress)("pass 1", 0, 2)
        progress(Step("pass 1", 0, 2))
        progress(Step("waiting, hot"))
        progress(Step("waiting, hot"))
    assert said[:2] == ["exporting (1/40)", "exporting (4/40)"]
    assert said[11:] == ["40 exported", "pass 1 (0/2)", "waiting, hot"]


def test_a_step_that_begins_anew_is_told_again(said):
    with output.shown_progress() as progress:
        progress(Step("exporting", 2, 2))
        progress(Step("exporting", 1, 1))
        progress(Note("next network"))
        progress(Step("exporting", 1, 1))
    assert said == ["exporting (2/2)", "exporting (1/1)", "next network", "exporting (1/1)"]


def test_details_are_those_of_the_step_that_is_told(said, monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with output.shown_progress() as progress:
        for done in (1, 2, 3, 4, 5, 60):
            progress(Step("training", done, 600, f"loss {done}"))
    assert said == ["training (1/600), loss 1", "training (4/600), loss 4", "training (60/600), loss 60"]


def test_a_log_says_how_many_are_left_and_how_long_that_takes(said, monkeypatch):
    """Two come from the cache; then one comes every 30 s."""
    clock = iter([0.0, 0.01, 30.01, 60.01, 90.01])
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with output.shown_progress() as progress:
        for done in (1, 2, 3, 4, 5):
            progress(Step(f"exported m{done}", done, 5))
    assert said == [
        "exported m1 (1/5)",
        "exported m2 (2/5)",
        "exported m3 (3/5), 2 left, about 60 s",
        "exported m4 (4/5), 1 left, about 30 s",
        "exported m5 (5/5)",
    ]


def test_another_task_has_its_own_pace():
    pace = Pace()
    assert pace.left(0, 10, 0.0) == ""
    assert pace.left(1, 10, 600.0) == "9 left, about 1.5 h"
    assert pace.left(0, 4, 601.0) == ""
    assert pace.left(2, 4, 603.0) == "2 left, about 2 s"
    assert pace.left(0, 0, 604.0) == ""
    assert [duration(s) for s in (0.2, 89, 90, 5399, 9000)] == ["1 s", "89 s", "2 min", "90 min", "2.5 h"]
