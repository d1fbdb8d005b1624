"""What tasks tell, and how a log shows it."""

from types import SimpleNamespace

import pytest

from orchestrator.cli import output, progress
from orchestrator.cli.progress import RemainingTime, duration, shown_progress
from orchestrator.tasks.progress import Note, Step, silent, steps


@pytest.fixture
def reported(monkeypatch):
    lines = []
    monkeypatch.setattr(output, "say", lines.append)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    return lines


def test_print_can_be_a_progress(capsys):
    for event in (Step("exporting", 1, 3), Step("waiting"), Note("left out x")):
        print(event)
        silent(event)
    assert capsys.readouterr().out == "exporting (1/3)\nwaiting\nleft out x\n"


def test_lines_for_each_step_tenth_and_note(reported):
    with shown_progress() as show:
        for done in range(1, 41):
            show(Step("exporting", done, 40))
        show(Note("40 exported"))
        steps(show)("pass 1", 0, 2)
        show(Step("pass 1", 0, 2))
        show(Step("waiting, hot"))
        show(Step("waiting, hot"))
    assert reported[:2] == ["exporting (1/40)", "exporting (4/40)"]
    assert reported[11:] == ["40 exported", "pass 1", "waiting, hot"]


def test_a_step_that_restarts_is_printed_again(reported):
    with shown_progress() as show:
        show(Step("exporting", 2, 2))
        show(Step("exporting", 1, 1))
        show(Note("next network"))
        show(Step("exporting", 1, 1))
    assert reported == ["exporting (2/2)", "exporting", "next network", "exporting"]


def test_details_belong_to_the_printed_step(reported, monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with shown_progress() as show:
        for done in (1, 2, 3, 4, 5, 60):
            show(Step("training", done, 600, f"loss {done}"))
    assert reported == ["training (1/600), loss 1", "training (4/600), loss 4", "training (60/600), loss 60"]


def test_lines_estimate_the_remaining_time(reported, monkeypatch):
    """Two come from the cache; then one comes every 30 s."""
    clock = iter([0.0, 0.01, 30.01, 60.01, 90.01])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with shown_progress() as show:
        for done in (1, 2, 3, 4, 5):
            show(Step(f"exported m{done}", done, 5))
    assert reported == [
        "exported m1 (1/5)",
        "exported m2 (2/5)",
        "exported m3 (3/5), 2 left, about 60 s",
        "exported m4 (4/5), 1 left, about 30 s",
        "exported m5 (5/5)",
    ]


def test_remaining_time_restarts_with_another_task():
    pace = RemainingTime()
    assert pace.text(0, 10, 0.0) == ""
    assert pace.text(1, 10, 600.0) == "9 left, about 1.5 h"
    assert pace.text(0, 4, 601.0) == ""
    assert pace.text(2, 4, 603.0) == "2 left, about 2 s"
    assert pace.text(0, 0, 604.0) == ""
    assert [duration(s) for s in (0.2, 89, 90, 5399, 9000)] == ["1 s", "89 s", "2 min", "90 min", "2.5 h"]


def test_a_pass_of_one_batch_is_one_line(reported):
    """Without a terminal there were three lines a pass: (0/1), (1/1) and measured (1/1)."""
    with shown_progress() as show:
        for number in (1, 2):
            for done in (0, 1):
                show(Step(f"pass {number}: measuring", done, 1))
    assert reported == ["pass 1: measuring", "pass 2: measuring"]
