"""Figures of a report: blocks, operators, the winner, and training curves."""

import itertools
import json
from typing import Any

import pytest

from orchestrator.breakdown.attribution import NetworkBreakdown, Operator, Roof, by_tracer
from orchestrator.report.draw import NARROW_PX, WIDE_PX, separate, write_figure
from orchestrator.report.figures import group_of, operators_figure
from orchestrator.report.inputs import read_run
from orchestrator.report.page import render
from orchestrator.report.search_sections import architecture_figure, repeated_blocks, training_figure
from search.supernet.train.logs import CLASSIFICATION_COLUMNS, LogRow, read_log
from tests.support.errors import raises
from tests.support.report_world import LARGE, SMALL, make_measured


@pytest.mark.parametrize("wanted", [[0.5, 0.5, 0.5], [0.9, 0.1], [0.30, 0.31, 0.36, 0.80, 0.80], [], [0.4]])
def test_labels_stand_apart_in_order_and_near(wanted):
    places = separate(wanted, 0.05)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for lower, upper in itertools.pairwise(order):
        assert places[upper] - places[lower] >= 0.05 - 1e-12
    assert sum(places) == pytest.approx(sum(wanted))
    assert len(wanted) > 2 or places == wanted, "with room they stay where they are"


OPERATORS = (
    Operator("a", "attention", "projection", 1.0, 10_000_000, 1_000_000),
    Operator("b", "attention", "softmax", 0.5, 0, 500_000),
    Operator("c", "mlp", "projection", 2.0, 40_000_000, 2_000_000),
    Operator("d", "attention", "elementwise", 0.25, 0, 100_000),
)
NETWORK = NetworkBreakdown("net", "0" * 64, {}, (by_tracer(5.0, OPERATORS, Roof(50.0, 10.0)),))


def test_pieces_of_a_bar():
    assert group_of("attention", "softmax") == "attention: softmax"
    assert group_of("attention", "elementwise") == group_of("attention", "other") == "attention: the rest"
    assert group_of("mlp", "softmax") == "MLP"


def test_bars_and_roofline_points():
    panels: list[Any] = operators_figure([NETWORK], "this machine").axes
    bars, roof = panels
    assert [patch.get_width() for patch in bars.patches] == pytest.approx([20.0, 10.0, 5.0, 40.0])
    assert [patch.get_x() for patch in bars.patches] == pytest.approx([0.0, 20.0, 30.0, 35.0])
    (points,) = roof.collections
    assert points.get_offsets().tolist() == [pytest.approx([10.0, 10.0]), pytest.approx([20.0, 20.0])]
    (line,) = roof.lines
    assert max(line.get_ydata()) == pytest.approx(50.0)


def test_operators_need_a_trace():
    with raises("not_traced"):
        operators_figure([NetworkBreakdown("net", "0" * 64, {}, ())], "x")


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_equal_figures_give_equal_files(tmp_path, monkeypatch, suffix):
    """Bug: a picture had the time at which it was written in it."""
    for name, now in (("a", "1600000000"), ("b", "1700000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", now)
        write_figure(tmp_path / f"{name}{suffix}", operators_figure([NETWORK], "x"))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert suffix != ".svg" or "attention: softmax" in (tmp_path / "a.svg").read_text()


def test_a_figure_of_another_format_is_refused(tmp_path):
    with raises("unknown_suffix"):
        write_figure(tmp_path / "a.gif", operators_figure([NETWORK], "x"))


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_blocks_are_drawn_in_order():
    shown = repeated_blocks(LARGE)
    assert [step.block for step in shown for _ in range(step.times)] == list(LARGE.blocks())
    assert [(step.title, step.channels, step.sides) for step in shown[:2]] == [
        ("conv", "3 → 16 ch", "64 → 32 px"),
        ("mbconv", "16 → 24 ch", "32 → 16 px"),
    ]
    assert [step.times for step in shown if step.block.kind == "mvit.layer"] == [2, 1]
    assert {step.title for step in shown} >= {"mvit.layer × 2", "mvit.layer", "head.fc"}


def test_boxes_do_not_overlap():
    for arch in (SMALL, LARGE):
        for width_px in (WIDE_PX, NARROW_PX):
            drawn = architecture_figure(arch, width_px)
            boxes = [patch.get_extents() for patch in drawn.axes[0].patches[::2]]
            assert len(boxes) == len(repeated_blocks(arch))
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
            width, height = drawn.get_size_inches() * 72
            for box in boxes:
                assert box.x0 >= 0 <= box.y0
                assert box.x1 <= width * drawn.dpi / 72
                assert box.y1 <= height * drawn.dpi / 72
            assert "conv" in texts(drawn)


def test_measurements_choose_the_winner(run, store):
    rows = [make_measured(arch)["models"][0] for arch in (LARGE, SMALL)]
    for winner, measured, sentence in (
        (SMALL, make_measured(SMALL) | {"models": rows}, "Measurements chose it"),
        (LARGE, make_measured(LARGE) | {"meets_budget": False}, "None of the measured networks is within"),
    ):
        (run / "search" / "winner.json").write_text(winner.to_json())
        (run / "search" / "measured.json").write_text(json.dumps(measured))
        inputs = read_run(run, store)
        assert inputs.search.winner.arch == LARGE.to_json()
        assert inputs.chosen.arch == winner.to_json()
        assert sentence in render(inputs)


HEADER = ",".join(CLASSIFICATION_COLUMNS)
ROWS = ("50,1,0.004,2.1,0.25,900.0,64", "100,2,0.002,1.5,0.5,910.0,64", "120,2,0.001,1.25,0.625,905.0,64")


def write_log(folder, rows=ROWS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_rows_of_a_log(tmp_path):
    rows = read_log(write_log(tmp_path) / "log.csv")
    assert rows[1] == LogRow(step=100, epoch=2, learning_rate=0.002, loss=1.5, accuracy=0.5)
    assert [row.step for row in rows] == [50, 100, 120]
    assert read_log(write_log(tmp_path, ()) / "log.csv") == ()


def test_curve_of_each_training(tmp_path):
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


def test_curve_of_the_supernet(run, store):
    write_log(run / "supernet")
    inputs = read_run(run, store)
    assert list(inputs.curves) == ["supernet"]
    assert inputs.absent == ()
    assert "How training went" in render(inputs)


ROW = "50,1,0.1,2,0.2,9,64"


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n"]
    + [
        f"{HEADER}\n{rows}\n"
        for rows in ("50,1,x,2.1,0.2,9,64", "50,1", "50,1,0.1,nan,0.2,9,64", f"{ROW}\n{ROW}")
    ],
)
def test_damaged_log_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    with raises("invalid_log") as caught:
        read_run(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_too_many_trainings_and_none(tmp_path):
    with raises("nothing_to_report"):
        read_run(tmp_path, None)
    for number in range(13):
        write_log(tmp_path / str(number))
    with raises("too_many_curves"):
        read_run(tmp_path, None)
