"""The winner drawn, and which winner the report speaks of."""

import json

from orchestrator.report.draw import NARROW_PX, WIDE_PX
from orchestrator.report.inputs import read_run
from orchestrator.report.page import render
from orchestrator.report.search_sections import architecture_figure, repeated_blocks
from tests.support.report_world import LARGE, SMALL, make_measured, write_run


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


def test_the_winner_is_the_one_that_measurements_chose(tmp_path):
    store, run = write_run(tmp_path), tmp_path / "run"
    (run / "search" / "winner.json").write_text(SMALL.to_json())
    rows = [make_measured(arch)["models"][0] for arch in (LARGE, SMALL)]
    chosen = make_measured(SMALL) | {"models": rows}
    (run / "search" / "measured.json").write_text(json.dumps(chosen))
    inputs = read_run(run, store)
    assert inputs.search.winner.arch == LARGE.to_json()
    assert inputs.chosen.arch == SMALL.to_json()
    assert "Measurements chose it" in render(inputs)
    (run / "search" / "measured.json").write_text(json.dumps(make_measured(LARGE) | {"meets_budget": False}))
    (run / "search" / "winner.json").write_text(LARGE.to_json())
    assert "None of the measured networks is within the budget" in render(read_run(run, store))
