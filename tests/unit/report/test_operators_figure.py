"""The picture of traced operators: bars of what attention is made of, points against the roof."""

from typing import Any

import pytest

from orchestrator.breakdown.attribution import NetworkBreakdown, by_tracer
from orchestrator.breakdown.roofline import Operator, Roof
from orchestrator.report.figures import group_of, operators_figure, write_operators_figure
from tests.support.errors import raises

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


def test_without_a_trace_there_is_nothing_to_draw(tmp_path):
    removal = NetworkBreakdown("net", "0" * 64, {}, ())
    with raises("not_traced"):
        write_operators_figure(tmp_path / "a.png", [removal], "x")
    with raises("unknown_suffix"):
        write_operators_figure(tmp_path / "a.gif", [NETWORK], "x")
    write_operators_figure(tmp_path / "a.svg", [NETWORK], "x")
    assert "attention: softmax" in (tmp_path / "a.svg").read_text()
