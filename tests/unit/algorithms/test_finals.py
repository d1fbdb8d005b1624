"""Finals: who is trained, who wins, and what the repetition bounds, by hand."""

import math

import pytest
from pydantic import ValidationError

from search.algorithms.finals import Final, Finals, Rule, finalists, hold_finals
from search.algorithms.record import Evaluated, SearchResult


def row(arch, accuracy, macs, depth):
    return Evaluated(
        arch=arch,
        accuracy=accuracy,
        macs=macs,
        depth=depth,
        latency_ms=1,
        latency_high_ms=1,
        params=1,
        generation=0,
    )


A, B, C, D, E = (
    row("a", 0.9, 10, 5),
    row("b", 0.8, 20, 9),
    row("c", 0.7, 30, 3),
    row("d", 0.6, 25, 4),
    row("e", 0.5, 5, 8),
)


@pytest.fixture
def result():
    return SearchResult.model_construct(
        evaluated=(A, B, D, E),
        largest=C,
        deepest=B,
        settings=type("S", (), {"rank_key": lambda _, r: -r.accuracy})(),
    )


def test_the_largest_the_deepest_and_the_best_are_trained(result):
    assert finalists(result, 4, lambda _: True) == {
        "c": "largest",
        "b": "deepest",
        "a": "search",
        "d": "search",
    }
    assert list(finalists(result, 9, lambda _: True)) == ["c", "b", "a", "d", "e"]


def test_networks_above_the_budget_are_replaced(result):
    chosen = finalists(result, 3, lambda row: row.arch not in "cb")
    assert chosen == {"d": "largest", "e": "deepest", "a": "search"}


def test_the_largest_has_the_most_macs_then_the_most_parameters(result):
    rows = [row("f", 0.5, 30, 1), row("g", 0.4, 20, 1), row("h", 0.3, 30, 1)]
    params = {"f": 5, "g": 9, "h": 7}
    rows = [each.model_copy(update={"params": params[each.arch]}) for each in rows]
    made = result.model_copy(update={"evaluated": tuple(rows), "largest": None, "deepest": None})
    assert finalists(made, 1, lambda _: True) == {"h": "largest"}


def finals(*scores: tuple[float, ...]) -> Finals:
    names: list[Rule] = ["largest", "deepest", "search", "search", "search", "search"]
    return Finals(
        recipe="r",
        fingerprint="f",
        finals=tuple(Final(arch="abcdef"[at], rule=names[at], top1=top1) for at, top1 in enumerate(scores)),
    )


def test_the_best_must_beat_the_largest_again():
    assert finals((0.7, 0.71), (0.6,), (0.8, 0.72)).winner.arch == "c"
    assert finals((0.7, 0.73), (0.6,), (0.8, 0.72)).winner.arch == "a"
    assert finals((0.7, 0.72), (0.6,), (0.8, 0.72)).winner.arch == "a", "equal is not better"
    assert finals((0.7,), (0.6,), (0.8,)).winner.arch == "c", "nothing was repeated"
    assert finals((0.7,), (0.7,)).winner.arch == "a"
    assert finals((0.7, 0.8, 0.6), (0.8, 0.65, 0.74)).winner.arch == "a", "means 0.7 and 0.695"


def test_noise_and_expected_loss_by_hand():
    held = finals((0.70, 0.72), (0.6,), (0.80, 0.76))
    noise = math.sqrt((0.0002 + 0.0008) / 2)
    assert held.noise == pytest.approx(noise)
    assert held.expected_loss == pytest.approx(0.17 * noise * math.sqrt(2))
    assert finals((0.7,), (0.8,)).expected_loss is None


def test_the_bound_holds_for_the_worst_difference():
    """0.17 sigma is the maximum of d Phi(-d / sigma)."""
    worst = max(d * 0.5 * math.erfc(d / math.sqrt(2)) for d in [i / 1000 for i in range(4000)])
    assert worst == pytest.approx(0.17, abs=0.001)


def test_only_the_best_and_the_largest_are_trained_again():
    calls = []

    def train(archs, seed):
        calls.append((list(archs), seed))
        return {arch: {"a": 0.7, "b": 0.9, "c": 0.8}[arch] - seed / 100 for arch in archs}

    chosen: dict[str, Rule] = {"a": "largest", "b": "search", "c": "search"}
    held = hold_finals(chosen, train, 3, 2)
    assert calls == [(["a", "b", "c"], 3), (["a", "b"], 4), (["a", "b"], 5)]
    assert [len(final.top1) for final in held] == [3, 3, 1]
    calls.clear()
    hold_finals({"b": "largest", "a": "search"}, train, 3, 2)
    assert calls == [(["b", "a"], 3)], "nothing was better than the largest"


def test_records_that_say_nothing_are_refused():
    good = finals((0.7, 0.7), (0.8, 0.7)).model_dump()
    assert Finals.model_validate(good)
    for change in ({"finals": good["finals"][::-1]}, {"finals": []}):
        with pytest.raises(ValidationError):
            Finals.model_validate(good | change)
    with pytest.raises(ValidationError):
        finals((0.7, 0.7), (0.8, 0.7, 0.9))
