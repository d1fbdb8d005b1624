"""Units of a class: the class's milliseconds, how far units lie apart, and that a LUT's samples tell it again."""

import math

import numpy as np
import pytest

from luts.estimate.latencies import QuietLatency, class_latency, unit_variation
from luts.estimate.ratios import LoadRatio


def quiet(ms, share=0.0):
    return QuietLatency(ms, ms * (1 - share), ms * (1 + share))


def test_class_latency_is_the_mean_of_units():
    one = quiet(10.0, 0.01)
    assert class_latency([one]) is one
    both = class_latency([quiet(10.0), quiet(12.1)])
    assert both.ms == pytest.approx(11.0)
    # sd of two logs is |difference| / sqrt(2); over sqrt(2) units; t(0.975, 1 df) = 12.706
    half = 12.7062 * math.log(1.21) / 2
    assert (math.log(both.ms / both.low), math.log(both.high / both.ms)) == pytest.approx(
        (half, half), rel=1e-4
    )


def load(model, batch, value):
    return LoadRatio(model, batch, 0, value, 0.001, 20, 1.5, 0.0)


def test_unit_variation_of_the_reference():
    seen = unit_variation({"a": quiet(1.0), "b": quiet(math.exp(0.02))}, [], {})
    assert (seen.units, seen.ratio) == (2, None)
    assert seen.reference == pytest.approx(0.02 / math.sqrt(2))
    assert unit_variation({"a": quiet(1.0)}, [], {}).reference is None


def test_unit_variation_of_ratios_by_hand():
    # One model, two loads on each of two units: cells {0, 2} and {4, 6}; within mean square 2, between 16; n0 = 2.
    loads = [load("m", batch, value) for batch, value in enumerate((0.0, 2.0, 4.0, 6.0))]
    unit_of = {(0, 0): "a", (1, 0): "a", (2, 0): "b", (3, 0): "b"}
    assert unit_variation({"a": quiet(1.0)}, loads, unit_of).ratio == pytest.approx(math.sqrt((16 - 2) / 2))
    assert unit_variation({"a": quiet(1.0)}, loads[:2], unit_of).ratio is None, "one unit tells of no other"


def test_unit_variation_is_recovered():
    rng = np.random.default_rng(3)

    def of(unit_sd):
        loads, unit_of, batch = [], {}, 0
        for model in range(60):
            own = rng.normal(0, unit_sd, 4)
            for unit in rng.integers(0, 4, 8):
                loads.append(load(f"m{model}", batch, own[unit] + rng.normal(0, 0.005)))
                unit_of[batch, 0] = f"u{unit}"
                batch += 1
        return unit_variation({"a": quiet(1.0)}, loads, unit_of).ratio

    assert of(0.02) == pytest.approx(0.02, rel=0.2)
    assert of(0.0) < 0.002
