"""Labels of the picture of blocks."""

import itertools

import pytest

from orchestrator.report.draw import separate


@pytest.mark.parametrize("wanted", [[0.5, 0.5, 0.5], [0.1, 0.9], [0.30, 0.31, 0.36, 0.80, 0.80], [], [0.4]])
def test_labels_stand_apart_in_order_and_near(wanted):
    places = separate(wanted, 0.05)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for lower, upper in itertools.pairwise(order):
        assert places[upper] - places[lower] >= 0.05 - 1e-12
    assert sum(places) == pytest.approx(sum(wanted))


def test_labels_with_room_stay_where_they_are():
    assert separate([0.9, 0.1, 0.5], 0.05) == [0.9, 0.1, 0.5]
