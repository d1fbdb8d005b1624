"""Calls at a steady rate, on simulated clocks."""

from __future__ import annotations

from typing import Any

from orchestrator.agent.timing import Pace, TimingOptions, time_schedule


class Clock:
    def __init__(self) -> None:
        self.ns = 100
        self.slept: list[int] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds * 1e9))
        self.ns += self.slept[-1]


def test_pace_moments() -> None:
    clock, begun = Clock(), []
    pace = Pace(30, lambda: clock.ns, clock.sleep)
    for call_ns in (10, 10, 70, 10, 0):
        pace.wait()
        begun.append(clock.ns)
        clock.ns += call_ns
    assert begun == [100, 130, 160, 230, 260]
    assert clock.slept == [20, 20, 20]


def test_paced_calls() -> None:
    clock, begun = Clock(), []

    class Model:
        inputs = ()

        def prepare(self, arrays: object) -> Any:
            return lambda: None

        def execute(self) -> None:
            begun.append(clock.ns)
            clock.ns += 10

    models: list[Any] = [Model()]
    pace = Pace(100, lambda: clock.ns, clock.sleep)
    samples = time_schedule(
        models, [[0, 0], [0, 0]], 2, lambda _: True, lambda: clock.ns, TimingOptions(pace=pace)
    )
    assert samples.tolist() == [[10, 10], [10, 10]]
    assert begun[:2] == [100, 110], "warm-up visits follow each other at once"
    assert begun[2:] == [120, 220, 320, 420]
