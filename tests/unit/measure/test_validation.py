"""What a validation says of its comparisons, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from luts.estimate.latencies import QuietLatency
from luts.estimate.statistics import Percentile, Percentiles, percentiles
from orchestrator.measure.validate import (
    LatencyComparison,
    Validation,
    compare_latencies,
    summarise_validation,
)
from orchestrator.plan.plan import model_id
from search.spaces import get_arch
from tests.support.report_world import make_lut

ROWS = (  # predicted: ms, low, high; measured: ms, low, high
    ((10.0, 9.0, 11.0), (10.0, 9.9, 10.1)),
    ((10.4, 9.0, 11.0), (10.0, 9.9, 10.2)),  # + 4 %
    ((18.0, 17.0, 22.5), (20.0, 19.0, 20.1)),  # - 10 %
    ((36.0, 35.0, 37.0), (30.0, 29.0, 31.0)),  # + 20 %, outside
)


@pytest.fixture
def validation() -> Validation:
    names = (
        "predicted_ms",
        "predicted_low",
        "predicted_high",
        "measured_ms",
        "measured_low",
        "measured_high",
    )
    rows = [
        LatencyComparison.model_validate(
            {"arch": "{}"} | dict(zip(names, (*predicted, *measured), strict=True))
        )
        for predicted, measured in ROWS
    ]
    measurement = SimpleNamespace(
        estimates=SimpleNamespace(noise_floor=0.007), reference=SimpleNamespace(ms=4.5)
    )
    return summarise_validation("a LUT", "host", make_lut(), rows, measurement)  # type: ignore[arg-type]


def test_errors_coverage_and_drift_by_hand(validation: Validation) -> None:
    assert validation.mape == pytest.approx((0 + 0.04 + 0.10 + 0.20) / 4)
    assert validation.max_error == pytest.approx(0.20)
    assert (validation.within_2, validation.within_5) == (0.25, 0.5)
    assert validation.coverage == 0.75, (
        "measurements inside the predicted intervals; the other way round 0.25"
    )
    assert make_lut().meta.reference_ms == 2.25
    assert validation.reference_drift == pytest.approx(2.0), "4.5 ms today, 2.25 ms in the LUT"
    assert validation.noise_floor == 0.007


def test_percentiles_of_a_comparison() -> None:
    arch, reported = get_arch("autovit-xxs-paper"), percentiles([np.full(40, 12.0)])
    asked: list[str] = []

    def percentiles_of(model: str) -> Percentiles:
        asked.append(model)
        return reported

    measurement = SimpleNamespace(
        ms=lambda *_: (10.0, 9.9, 10.1), estimates=SimpleNamespace(percentiles=percentiles_of)
    )
    model = SimpleNamespace(predict=lambda *_: SimpleNamespace(ms=10.0, low=9.0, high=11.0))
    (row,) = compare_latencies(model, [arch], measurement, 10.0)  # type: ignore[arg-type]
    assert asked == [model_id(arch.keys())]
    assert LatencyComparison.model_validate_json(row.model_dump_json()) == row
    assert row.percentiles is not None
    assert (row.percentiles.p50, row.percentiles.p99) == (Percentile(12.0, 12.0, 12.0), None)


def test_an_error_is_of_the_measurement(validation: Validation) -> None:
    assert [row.error for row in validation.comparisons] == pytest.approx([0.0, 0.04, -0.1, 0.2])


def test_order_counts_ties_of_the_truth_out(validation: Validation) -> None:
    """Kendall's tau-b of six pairs: five agree, the truth of one is tied: 5 / sqrt(6 * 5)."""
    assert validation.kendall_tau == pytest.approx(5 / 30**0.5)


@pytest.mark.parametrize(("reference_ms", "below"), [(4.0, 0.3), (None, 1.09**0.5)])
def test_on_another_device_the_reference_is_uncertain_too(reference_ms: float | None, below: float) -> None:
    """Of 10 ms: 0.3 of its ratio, and 10 % = 1 ms of its reference, in squares 0.09 + 1."""
    measurement = SimpleNamespace(
        ms=lambda *_: (10.0, 9.7, 10.3),
        reference=QuietLatency(4.0, 3.6, 4.4),
        estimates=SimpleNamespace(percentiles=lambda _: percentiles([])),
    )
    model = SimpleNamespace(predict=lambda *_: SimpleNamespace(ms=10.0, low=9.0, high=11.0))
    arch = get_arch("autovit-xxs-paper")
    (row,) = compare_latencies(model, [arch], measurement, reference_ms)  # type: ignore[arg-type]
    assert (row.measured_low, row.measured_high) == pytest.approx((10 - below, 10 + below))
