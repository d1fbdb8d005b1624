"""Warming up by time: the cases that all agents share, and what the timing loop makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.timing import AdaptiveWarmup, TimingOptions, time_schedule

GOLDEN = Path(__file__).resolve().parents[3] / "protocol/golden/ramps.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_bytes())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_it_ends_where_all_agents_end(case: dict[str, Any]) -> None:
    rounds = [times for count, times in case["rounds"] for _ in range(count)]
    ramp = AdaptiveWarmup(case["bound_ns"])
    assert [ramp.add_round(times) for times in rounds] == [True] * (len(rounds) - 1) + [False]
    assert (ramp.ns, ramp.rounds, ramp.steady) == (case["ns"], len(rounds), case["steady"])


class Climbing:
    """Takes twice its time at first and 5 % less of that at every execution, on a clock that it moves on."""

    inputs = ()

    def __init__(self, name: str, clock: list[int], calls: list[str], ns: int) -> None:
        self._name, self._clock, self._calls, self._ns, self._slow = name, clock, calls, ns, 2.0

    def prepare(self, arrays: object) -> Callable[[], object]:
        return lambda: None

    def execute(self) -> None:
        self._calls.append(self._name)
        self._clock[0] += int(self._ns * self._slow)
        self._slow = max(1.0, 0.95 * self._slow)


def climb(ramp: AdaptiveWarmup | None) -> tuple[list[list[int]], list[str]]:
    clock: list[int] = [0]
    calls: list[str] = []
    models: list[Any] = [Climbing("a", clock, calls, 10_000_000), Climbing("b", clock, calls, 5_000_000)]
    order = [[0, 1], [1, 0]]
    samples = time_schedule(models, order, 2, lambda _: True, lambda: clock[0], TimingOptions(warmup=ramp))
    return samples.tolist(), calls


def test_rounds_begin_when_the_clock_is_up() -> None:
    cold, calls = climb(None)
    assert calls == ["a", "a", "b", "b", *"ab", *"ba"]
    assert cold[0][0] > 18_000_000
    ramp = AdaptiveWarmup(10**10)
    warm, calls = climb(ramp)
    assert warm == [[10_000_000, 5_000_000], [5_000_000, 10_000_000]]
    assert calls == ["a", "a", "b", "b", *["a", "b"] * ramp.rounds, *"ab", *"ba"]
    assert ramp.steady


def test_a_warm_up_is_bounded() -> None:
    ramp = AdaptiveWarmup(60_000_000)
    samples, _ = climb(ramp)
    assert not ramp.steady
    assert 60_000_000 <= ramp.ns < 60_000_000 + 30_000_000
    assert samples[0][0] > 10_000_000
