"""What a run does around its executions, on simulated clocks: pieces, pace, heartbeats, warm-up by time."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.runtime import Model
from orchestrator.agent.timing import (
    KEEP_WARM_NS,
    AdaptiveWarmup,
    Heartbeat,
    Pace,
    TimingOptions,
    heartbeats_during,
    spin,
    time_schedule,
)
from tests.support.errors import raises

GOLDEN = Path(__file__).resolve().parents[3] / "protocol/golden/ramps.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_bytes())["cases"]


class Clock:
    """Stands still but for executions and sleeps, which it notes."""

    def __init__(self, ns: int = 0) -> None:
        self.ns = ns
        self.slept: list[int] = []
        self.begun: list[tuple[str, int]] = []

    def __call__(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds * 1e9))
        self.ns += self.slept[-1]


class TakesTime(Model):
    """Takes `slow` times so many nanoseconds at first, and 5 % less of that at every execution."""

    def __init__(self, clock: Clock, ns: int, name: str = "", slow: float = 1.0) -> None:
        self._clock, self._ns, self._name, self._slow = clock, ns, name, slow

    def execute(self) -> None:
        self._clock.begun.append((self._name, self._clock.ns))
        self._clock.ns += int(self._ns * self._slow)
        self._slow = max(1.0, 0.95 * self._slow)


@pytest.mark.parametrize(
    ("piece_s", "expected"),
    [
        # The first execution alone, then what is left of its warm-up, the other model's, and the rounds.
        (1.0, [0, 1, 3, 6, 10]),
        # Two of the slowest, once that is known: the rounds in halves.
        (20e-9, [0, 1, 3, 6, 8, 10, 12]),
        # Less than one of the slowest: one at a time.
        (5e-9, [0, 1, 3, 6, 7, 8, 9, 10, 11, 12, 13]),
    ],
)
def test_executions_are_counted(piece_s: float, expected: list[int]) -> None:
    clock = Clock()
    heard: list[int] = []

    def go_on(executions: int) -> bool:
        heard.append(executions)
        return True

    models = [TakesTime(clock, 1), TakesTime(clock, 10)]
    samples = time_schedule(models, [[0, 1, 1, 0], [1, 0, 0, 0]], 3, go_on, clock, TimingOptions(piece_s))
    assert samples.tolist() == [[1, 10, 10, 1], [10, 1, 1, 1]]
    assert heard == expected


def test_run_ends_between_pieces() -> None:
    clock = Clock()
    with raises("cancelled"):
        time_schedule([TakesTime(clock, 1)], [[0, 0], [0, 0]], 0, lambda n: n < 2, clock)
    assert clock.ns == 2


def test_clock_that_runs_backwards_is_named() -> None:
    clock = Clock(100)
    with raises("internal") as refused:
        time_schedule([TakesTime(clock, -1)], [[0]], 0, lambda _: True, clock)
    assert "clock ran backwards" in str(refused.value)


def test_pace_moments() -> None:
    clock, begun = Clock(100), []
    pace = Pace(30, clock, clock.sleep)
    for call_ns in (10, 10, 70, 10, 0):
        pace.wait()
        begun.append(clock.ns)
        clock.ns += call_ns
    assert begun == [100, 130, 160, 230, 260]
    assert clock.slept == [20, 20, 20]


def test_paced_calls() -> None:
    clock = Clock(100)
    options = TimingOptions(pace=Pace(100, clock, clock.sleep))
    samples = time_schedule([TakesTime(clock, 10)], [[0, 0], [0, 0]], 2, lambda _: True, clock, options)
    assert samples.tolist() == [[10, 10], [10, 10]]
    begun = [ns for _, ns in clock.begun]
    assert begun[:2] == [100, 110], "warm-up visits follow each other at once"
    assert begun[2:] == [120, 220, 320, 420]


def test_spin_before_calls() -> None:
    clock = Clock()
    pace = Pace(1000, clock, clock.sleep)
    options = TimingOptions(pace=pace, spin=lambda: clock.begun.append(("spin", clock.ns)))
    samples = time_schedule([TakesTime(clock, 1, "run")], [[0, 0]], 1, lambda _: True, clock, options)
    assert clock.begun == [("run", 0), ("spin", 1), ("run", 1), ("spin", 1001), ("run", 1001)]
    assert samples.tolist() == [[1, 1]]


def test_a_spin_takes_its_time() -> None:
    start_ns = time.perf_counter_ns()
    spin()
    assert time.perf_counter_ns() - start_ns >= KEEP_WARM_NS


def test_a_pulse_beats_once_in_every_interval() -> None:
    now, beats = [100.0], []
    pulse = Heartbeat(lambda: now[0] < 125.0, beats.append, 10.0, lambda: now[0])
    asked = []
    for now[0] in (101.0, 109.5, 110.0, 119.0, 121.0, 125.0):
        asked.append(pulse(int(now[0])))
    assert beats == [110, 121]
    assert asked == [True] * 5 + [False]


def test_heartbeat_thread() -> None:
    beats: list[int] = []
    three = threading.Event()

    def beat() -> None:
        beats.append(0)
        if len(beats) == 3:
            three.set()

    with heartbeats_during(beat, 0.001):
        assert three.wait(300)
    count = len(beats)
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    with heartbeats_during(beat, 0):
        assert len(beats) == count


def test_beats_end_with_the_client() -> None:
    gone = threading.Event()

    def beat() -> None:
        gone.set()
        raise BrokenPipeError

    with heartbeats_during(beat, 0.001):
        assert gone.wait(300)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_warmup_ends_where_all_agents_end(case: dict[str, Any]) -> None:
    rounds = [times for count, times in case["rounds"] for _ in range(count)]
    ramp = AdaptiveWarmup(case["bound_ns"])
    assert [ramp.add_round(times) for times in rounds] == [True] * (len(rounds) - 1) + [False]
    assert (ramp.ns, ramp.rounds, ramp.steady) == (case["ns"], len(rounds), case["steady"])


def climb(ramp: AdaptiveWarmup | None) -> tuple[list[list[int]], list[str]]:
    clock = Clock()
    models = [TakesTime(clock, 10_000_000, "a", slow=2.0), TakesTime(clock, 5_000_000, "b", slow=2.0)]
    order = [[0, 1], [1, 0]]
    samples = time_schedule(models, order, 2, lambda _: True, clock, TimingOptions(warmup=ramp))
    return samples.tolist(), [name for name, _ in clock.begun]


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
