"""Numbers behind the pictures, against numbers worked out by hand."""

import pytest

from orchestrator.report.inputs import read_run
from orchestrator.report.numbers import aa_rows, agreement, front, history, latency_parts
from search.spaces import get_arch
from tests.support.errors import raises
from tests.support.report_world import (
    AA_RATIO,
    BASE_MS,
    BLOCK_MS,
    LARGE,
    MS_PER_MIB,
    SMALL,
    evaluated,
    make_lut,
    make_search,
    write_run,
)


def test_front_keeps_only_what_no_other_beats() -> None:
    slow = evaluated(LARGE, 0.7, 5.0, 0)
    beaten = evaluated(LARGE, 0.6, 4.0, 0)
    equal_but_slower = evaluated(LARGE, 0.65, 3.5, 0)
    fast, good = evaluated(SMALL, 0.5, 2.0, 0), evaluated(LARGE, 0.65, 3.0, 0)
    same_speed_worse = evaluated(SMALL, 0.4, 2.0, 0)
    found = front([slow, beaten, equal_but_slower, fast, good, same_speed_worse])
    assert found == [fast, good, slow]


def test_latency_parts_follow_each_other_and_add_up() -> None:
    parts = latency_parts(make_lut(), LARGE)
    assert [part.key for part in parts] == ["", *LARGE.keys(), ""]
    assert [parts[0].kind, parts[-1].kind] == ["base", "data moved"]
    moved_ms = MS_PER_MIB * LARGE.boundary_bytes() / 2**20
    assert parts[-1].ms == pytest.approx(moved_ms)
    assert [part.start_ms for part in parts[:3]] == pytest.approx([0, BASE_MS, BASE_MS + BLOCK_MS])
    end_ms = parts[-1].start_ms + parts[-1].ms
    assert end_ms == pytest.approx(BASE_MS + BLOCK_MS * len(LARGE.keys()) + moved_ms)


def test_a_network_of_another_space_has_no_parts() -> None:
    with raises("missing_entry"):
        latency_parts(make_lut(), get_arch("autovit-xxs-paper"))


def test_history_quartiles_and_best() -> None:
    first, second = history(make_search())
    assert (first.new, first.best) == (2, 0.625)
    assert (first.low_quartile, first.median, first.high_quartile) == (0.53125, 0.5625, 0.59375)
    assert (second.new, second.best, second.median) == (1, 0.875, 0.875)


def test_aa_rows_hold_rejected_batches_too() -> None:
    rows = aa_rows(make_lut())
    assert [(row.batch, row.kept) for row in rows] == [(0, True), (1, False), (2, True)]
    assert all(row.difference == pytest.approx(AA_RATIO - 1, abs=1e-6) for row in rows)


def test_agreement_tells_origins_apart(tmp_path) -> None:
    series = agreement(read_run(tmp_path / "run", write_run(tmp_path)))
    assert [(one.name, len(one.pairs)) for one in series] == [
        ("held out of the LUT", 1),
        ("new random networks", 2),
        ("found by the search", 1),
    ]
    heldout, fresh, _ = series
    assert heldout.mape == pytest.approx(0.25)
    assert heldout.within_5 == 0
    assert [pair.error for pair in fresh.pairs] == pytest.approx([0.0, -0.2])
    assert (fresh.mape, fresh.worst, fresh.within_5) == pytest.approx((0.1, 0.2, 0.5))
