import math

import pytest

from luts.estimate.ratios import Ratio
from orchestrator.breakdown.attribution import Operator, by_removal, by_tracer


def ratio(without: float, half_width: float) -> Ratio:
    """A network at `without` times the whole's latency."""
    log = math.log(without)
    return Ratio(log, half_width / 2, log - half_width, log + half_width, loads=3, rounds=60)


def test_a_share_is_what_is_missed_without():
    found = by_removal(8.0, {"mlp": ratio(0.75, 0.01), "attention": ratio(0.5, 0.01)})
    assert list(found.shares) == ["attention", "mlp"]
    assert found.shares["attention"].ms == pytest.approx(4.0)
    assert found.shares["mlp"].ms == pytest.approx(2.0)
    assert found.unexplained_ms == pytest.approx(2.0)
    assert found.shares["mlp"].low == pytest.approx(8 - 6 * math.exp(0.01))
    assert found.shares["mlp"].high == pytest.approx(8 - 6 * math.exp(-0.01))


def test_negative_unexplained_time():
    found = by_removal(8.0, {"mlp": ratio(0.25, 0.01), "attention": ratio(0.5, 0.01)})
    assert found.unexplained_ms == pytest.approx(-2.0)


def test_negative_removal_share():
    found = by_removal(8.0, {"reshape": ratio(1.125, 0.01)})
    assert found.shares["reshape"].ms == pytest.approx(-1.0)
    assert found.unexplained_ms == pytest.approx(9.0)


def test_traced_kinds_add_up():
    found = by_tracer(
        5.0,
        [
            Operator("a", "mlp", "projection", 1.0),
            Operator("b", "attention", "softmax", 2.0),
            Operator("c", "mlp", "activation", 0.5),
        ],
    )
    assert {kind: share.ms for kind, share in found.shares.items()} == {"attention": 2.0, "mlp": 1.5}
    assert found.shares["mlp"].low is None
    assert found.unexplained_ms == pytest.approx(1.5)
