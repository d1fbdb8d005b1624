"""What a run does between its executions, with simulated clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.agent.timing import Heartbeat, TimingOptions, heartbeats_during, time_schedule
from orchestrator.wire.errors import OpError


class TakesTime:
    """A model of so many nanoseconds on the clock that it moves on."""

    inputs: tuple[Any, ...] = ()

    def __init__(self, clock: list[int], ns: int) -> None:
        self._clock, self._ns = clock, ns

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        return lambda: None

    def execute(self) -> None:
        self._clock[0] += self._ns


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
    clock: list[int] = [0]
    heard: list[int] = []

    def go_on(executions: int) -> bool:
        heard.append(executions)
        return True

    models = [TakesTime(clock, 1), TakesTime(clock, 10)]
    samples = time_schedule(
        models,  # type: ignore[arg-type]
        [[0, 1, 1, 0], [1, 0, 0, 0]],
        3,
        go_on,
        lambda: clock[0],
        TimingOptions(piece_s),
    )
    assert samples.tolist() == [[1, 10, 10, 1], [10, 1, 1, 1]]
    assert heard == expected


def test_run_ends_between_pieces() -> None:
    clock = [0]
    with pytest.raises(OpError) as ended:
        time_schedule([TakesTime(clock, 1)], [[0, 0], [0, 0]], 0, lambda n: n < 2, lambda: clock[0])  # type: ignore[list-item]
    assert ended.value.code == "cancelled"
    assert clock == [2]


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
    assert not [thread for thread in threading.enumerate() if thread.name == "signs of life"]
    with heartbeats_during(beat, 0):
        assert len(beats) == count


def test_beats_end_with_the_client() -> None:
    gone = threading.Event()

    def beat() -> None:
        gone.set()
        raise BrokenPipeError

    with heartbeats_during(beat, 0.001):
        assert gone.wait(300)
