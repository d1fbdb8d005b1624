"""Cascades: shares, expected latency, bounds and thresholds by hand, and the choice against an exhaustive one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luts.format.errors import InfeasibleError
from search.algorithms.adaptive import Cascade, CascadeLimits, ScoredArch, best_cascade, share_bound
from tests.support.errors import raises


def network(name, ms, high_ms=None):
    return ScoredArch(arch=name, latency_ms=ms, latency_high_ms=high_ms or ms, params=1, macs=1, accuracy=0.5)


def cascade(*stages, thresholds=(0.5,), answered=(3, 1), correct=2, confidence=0.95):
    stages = stages or (network("a", 1.0, 1.5), network("b", 4.0, 5.0))
    return Cascade(
        stages=stages, thresholds=thresholds, answered=answered, correct=correct, confidence=confidence
    )


FAST, SLOW = network("fast", 1.0, 1.1), network("slow", 10.0, 11.0)
CONFIDENCES = np.array([[0.9, 0.8, 0.8, 0.3], [0.9, 0.9, 0.9, 0.9]])
CORRECT = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool)
"""The fast network is right where it is confident; the slow one is right on the other images."""


def limits(latency_ms=100.0, worst_ms=100.0, **others):
    return CascadeLimits(latency_ms=latency_ms, worst_ms=worst_ms, **{"cautious": False} | others)


def test_latencies_shares_and_accuracy_by_hand():
    value = cascade()
    assert value.shares == (0.75, 0.25)
    assert value.accuracy == 0.5
    assert value.expected_ms == 1.0 + 0.25 * 4.0
    assert (value.worst_ms, value.worst_high_ms) == (5.0, 6.5)


def test_the_bound_of_a_share_is_that_of_clopper_and_pearson():
    """Where all of n images are counted or none, the bound has a closed form."""
    assert share_bound(0, 20, 0.95) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert share_bound(19, 20, 0.95) == pytest.approx(0.95 ** (1 / 20))
    assert share_bound(20, 20, 0.95) == 1.0
    # P(at most 1 of 2) = 1 - p^2
    assert share_bound(1, 2, 0.9) == pytest.approx(0.9**0.5)


def test_the_bound_of_the_expected_latency_by_hand():
    value = cascade(answered=(1, 1), confidence=0.9)
    assert value.expected_high_ms == pytest.approx(1.5 + 0.9**0.5 * 5.0)


def test_two_shares_are_bounded_together():
    """With two thresholds each bound has half of the error probability."""
    stages = (network("a", 1.0), network("b", 2.0), network("c", 4.0))
    value = cascade(*stages, thresholds=(0.9, 0.8), answered=(2, 1, 1), correct=3, confidence=0.9)
    assert value.expected_ms == 1.0 + 0.5 * 2.0 + 0.25 * 4.0
    bounds = share_bound(np.array([2, 1]), 4, 0.95)
    assert value.expected_high_ms == pytest.approx(1.0 + bounds @ [2.0, 4.0])


@pytest.mark.parametrize(
    ("count", "images"), [(0, 40), (3, 40), (20, 40), (39, 40)]
)  # each covers the truth with at least 95 %
def test_a_share_at_its_bound_gives_so_few_images_with_five_percent(count, images):
    from scipy.stats import binom

    assert binom.cdf(count, images, float(share_bound(count, images, 0.95))) == pytest.approx(0.05)


def test_replayed_images_leave_at_the_first_stage_that_is_confident():
    stages = (network("a", 1.0), network("b", 2.0), network("c", 4.0))
    value = cascade(*stages, thresholds=(0.9, 0.5), answered=(1, 1, 1))
    confidences = np.array([[0.9, 0.2, 0.1, 0.89], [np.nan, 0.5, 0.4, 0.9], [np.nan, np.nan, 0.1, np.nan]])
    correct = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]], bool)
    replayed = value.replayed(confidences, correct)
    assert replayed.answered == (1, 2, 1)
    assert replayed.correct == 3
    assert (replayed.stages, replayed.thresholds) == (value.stages, value.thresholds)


def test_a_threshold_that_no_image_passes_is_one_line():
    with raises("threshold_not_reached") as caught:
        cascade(FAST, SLOW, thresholds=(0.95,)).replayed(CONFIDENCES, CORRECT)
    assert "none of 4 images passes threshold 0.95 of stage 1" in str(caught.value)
    assert "the highest confidence is 0.9," in str(caught.value)


def test_the_threshold_answers_the_most_images_correctly():
    """After one image 4 of 4 are right, after three (the second and third have equal confidence) 3 of 4."""
    best = best_cascade([FAST, SLOW], CONFIDENCES, CORRECT, limits())
    assert best.stages == (FAST, SLOW)
    assert best.thresholds == pytest.approx((0.85,))
    assert (best.answered, best.correct) == ((1, 3), 4)


def test_a_tighter_expected_latency_lets_more_images_leave_early():
    best = best_cascade([FAST, SLOW], CONFIDENCES, CORRECT, limits(4.0))
    assert best.thresholds == pytest.approx((0.55,))
    assert (best.answered, best.correct) == ((3, 1), 3)
    assert best.expected_ms == 1.0 + 0.25 * 10.0


def test_among_equals_the_cheaper_cascade_is_chosen():
    same = np.ones((3, 4), bool)
    confidences = np.array([[0.4, 0.3, 0.2, 0.1]] * 3)
    best = best_cascade(
        [network("c", 3.0), network("a", 1.0), network("b", 2.0)], confidences, same, limits()
    )
    assert [stage.arch for stage in best.stages] == ["a", "b"]
    assert best.answered == (3, 1)


def test_upper_bounds_count_unless_predictions_are_compared():
    """One of four images has a share of at most 75.1 % at 95 %, so 1.1 + 0.751 x 11 = 9.4 ms."""
    bound = 1.1 + float(share_bound(1, 4, 0.95)) * 11.0
    best = best_cascade([FAST, SLOW], CONFIDENCES, CORRECT, limits(bound + 1e-9, cautious=True))
    assert best.answered == (3, 1)
    assert best.expected_high_ms == pytest.approx(bound)


@pytest.mark.parametrize(
    ("given_limits", "message"),
    [
        (limits(5.0, 10.9), r"worst case of at most 10\.9 ms: .* take 11 ms together; .* --worst"),
        (limits(0.9), r"at most 0\.9 ms: the fastest network takes 1 ms, the fastest cascade takes 3\.5 ms"),
        (limits(5.0, cautious=True), r"takes 1\.1 ms, 4 images bound the mean by 9\.36\d ms; .* or compare"),
    ],
)
def test_what_can_be_reached_is_said(given_limits, message):
    with pytest.raises(InfeasibleError, match=message):
        best_cascade([FAST, SLOW], CONFIDENCES, CORRECT, given_limits)


def test_equal_confidences_cannot_be_divided():
    with pytest.raises(InfeasibleError, match="no threshold on the confidence divides 4 images"):
        best_cascade([FAST, SLOW], np.full((2, 4), 0.5), CORRECT, limits())


def test_one_network_is_not_a_cascade():
    with pytest.raises(InfeasibleError, match="take 2 ms together"):
        limits(1.5, 1.5).check(np.array([1.0]), np.array([[np.inf]]), 100)


@pytest.mark.parametrize(
    "changes",
    [{"thresholds": ()}, {"answered": (1, 1, 1)}, {"correct": 5}, {"answered": (0, 0), "correct": 0}],
)
def test_contradictory_cascades_are_refused(changes):
    with pytest.raises(ValidationError):
        cascade(**changes)


def test_derived_values_in_a_file_are_computed_again():
    document = cascade().model_dump()
    assert document["expected_ms"] == 2.0
    assert Cascade.model_validate(document | {"expected_ms": 0.1}) == cascade()
    assert Cascade.model_validate_json(cascade().model_dump_json()).expected_ms == 2.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(1.2, 4.0), st.floats(2.5, 8.0))
def test_no_pair_and_threshold_is_better(seed, cautious, latency_ms, worst_ms):
    rng = np.random.default_rng(seed)
    rows = [network(str(ms), float(ms), 1.1 * ms) for ms in (1, 2, 4)]
    confidences = rng.random((3, 12)).round(1)  # with ties
    correct = rng.random((3, 12)) < confidences
    given_limits = limits(latency_ms, worst_ms, cautious=cautious)
    allowed = []
    for first, second in itertools.permutations(range(3), 2):
        for threshold in np.unique(confidences[first])[1:]:
            leaving = confidences[first] >= threshold
            one, two = (
                given_limits.price(rows[at].latency_ms, rows[at].latency_high_ms) for at in (first, second)
            )
            expected = one + float(given_limits.share(int((~leaving).sum()), 12)) * two
            if expected <= latency_ms and one + two <= worst_ms:
                right = correct[first, leaving].sum() + correct[second, ~leaving].sum()
                allowed.append((-int(right), expected))
    if not allowed:
        with pytest.raises(InfeasibleError):
            best_cascade(rows, confidences, correct, given_limits)
        return
    best = best_cascade(rows, confidences, correct, given_limits)
    assert best.correct == -min(allowed)[0]
    found_ms = best.expected_high_ms if cautious else best.expected_ms
    assert found_ms == pytest.approx(min(allowed)[1])
    assert min(best.answered) >= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.data(), st.floats(0.5, 0.999))
def test_a_bound_is_above_the_share_and_grows_with_it(images, data, confidence):
    count = data.draw(st.integers(0, images))
    bounds = share_bound(np.arange(images + 1), images, confidence)
    assert count / images <= bounds[count] <= 1.0
    assert (np.diff(bounds) > 0).all()


EXIT, WHOLE, OTHER = network("exit", 2.0, 2.2), network("whole", 5.0), network("other", 1.0)
SEGMENTS = {(0, 1): network("whole", 3.5, 3.6)}
"""The whole network takes 5 ms in one call; up to the exit and after it, with a second base, 2 + 3.5 ms."""


def test_a_network_with_an_exit_pays_for_its_segments_and_not_twice():
    """The second stage may only be the exit's own network, though the third network is faster."""
    confidences = np.array([[0.9, 0.8, 0.8, 0.3], [0.9] * 4, [0.9] * 4])
    correct = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]], bool)
    best = best_cascade([EXIT, WHOLE, OTHER], confidences, correct, limits(5.0, kind="exits"), SEGMENTS)
    assert best.stages == (EXIT, SEGMENTS[0, 1])
    assert (best.answered, best.correct) == ((1, 3), 4)
    assert best.expected_ms == 2.0 + 0.75 * 3.5
    assert best.worst_ms == 5.5


def test_a_tighter_mean_lets_more_images_leave_at_the_exit():
    best = best_cascade(
        [EXIT, WHOLE], CONFIDENCES, CORRECT, limits(2.0 + 0.25 * 3.5, 5.5, kind="exits"), SEGMENTS
    )
    assert (best.answered, best.correct, best.expected_ms) == ((3, 1), 3, 2.875)


@pytest.mark.parametrize(
    ("given_limits", "message"),
    [
        (
            limits(5.0, 5.4, kind="exits"),
            r"exit has a worst case of at most 5\.4 ms: .* take 5\.5 ms together",
        ),
        (limits(1.9, 5.5, kind="exits"), r"the first exit takes 2 ms, the fastest .* exit takes 2\.875 ms"),
        (
            limits(3.5, 6.0, kind="exits", cautious=True),
            r"takes 2\.2 ms, 4 images bound the mean by 4\.90\d ms",
        ),
    ],
)
def test_what_exits_can_reach_is_said(given_limits, message):
    """One of four images has a share of at most 75.1 % at 95 %: 2.2 + 0.751 x 3.6 = 4.90 ms."""
    with pytest.raises(InfeasibleError, match=message):
        best_cascade([EXIT, WHOLE], CONFIDENCES, CORRECT, given_limits, SEGMENTS)
