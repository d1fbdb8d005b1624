"""Training curves of a report: read from `log.csv`, one line a training."""

from typing import Any

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.report.inputs import read_run
from orchestrator.report.page import render
from orchestrator.report.search_sections import training_figure
from search.supernet.train.logs import CLASSIFICATION_COLUMNS, LogRow, read_log
from tests.support.errors import raises
from tests.support.report_world import write_run

HEADER = ",".join(CLASSIFICATION_COLUMNS)
ROWS = ("50,1,0.004,2.1,0.25,900.0,64", "100,2,0.002,1.5,0.5,910.0,64", "120,2,0.001,1.25,0.625,905.0,64")


def write_log(folder, rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = read_log(write_log(tmp_path) / "log.csv")
    assert rows[1] == LogRow(step=100, epoch=2, learning_rate=0.002, loss=1.5, accuracy=0.5)
    assert [row.step for row in rows] == [50, 100, 120]
    assert read_log(write_log(tmp_path, ()) / "log.csv") == ()


def test_a_line_for_each_training_of_a_folder(tmp_path):
    write_log(tmp_path / "none")
    write_log(tmp_path / "hard", ("50,1,0.004,1.9,0.375,900.0,64",))
    write_log(tmp_path / "just begun", ())
    inputs = read_run(tmp_path, None)
    assert list(inputs.curves) == ["hard", "none"]
    panels: list[Any] = training_figure(inputs.curves, 880).axes
    loss, accuracy = panels
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.9], [2.1, 1.5, 1.25]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[37.5], [25.0, 50.0, 62.5]]
    assert list(accuracy.lines[1].get_xdata()) == [50, 100, 120]
    page = render(inputs)
    assert "How training went" in page
    assert "none: 120 steps, 2 epochs, loss 1.250, accuracy 62.5" in page.replace("\N{NO-BREAK SPACE}", " ")


def test_a_run_with_a_supernet_shows_how_it_was_trained(tmp_path):
    store = write_run(tmp_path)
    write_log(tmp_path / "run" / "supernet")
    inputs = read_run(tmp_path / "run", store)
    assert list(inputs.curves) == ["supernet"]
    assert inputs.absent == ()
    assert "How training went" in render(inputs)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "not a training's log"),
        ("", "not a training's log"),
        (f"{HEADER}\n50,1,x,2.1,0.2,9,64\n", "not a training's log"),
        (f"{HEADER}\n50,1\n", "not a training's log"),
        (f"{HEADER}\n50,1,0.1,nan,0.2,9,64\n", "not finite"),
        (f"{HEADER}\n50,1,0.1,2,0.2,9,64\n50,1,0.1,2,0.2,9,64\n", "do not ascend"),
    ],
)
def test_a_damaged_log_is_refused_in_one_line(tmp_path, text, why):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InvalidArtifactError, match=why) as caught:
        read_run(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_too_many_trainings_and_none(tmp_path):
    with raises("nothing_to_report"):
        read_run(tmp_path, None)
    for number in range(13):
        write_log(tmp_path / str(number))
    with raises("too_many_curves"):
        read_run(tmp_path, None)
