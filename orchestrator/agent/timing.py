"""The timing loop: the one place where latency is measured on the host."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from orchestrator.agent.runtime import Model
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import TensorSpec

KEEP_WARM_NS = 500_000
"""Duration of the work before a call: clocks of phones rise within a fraction of a millisecond of work."""


def spin() -> None:
    """Keep the processor busy for `KEEP_WARM_NS`."""
    end_ns = time.perf_counter_ns() + KEEP_WARM_NS
    while time.perf_counter_ns() < end_ns:
        pass


class Pace:
    """Moments that are `period_ns` apart; a late one shifts all that follow, so that none are crowded."""

    def __init__(self, period_ns: int, clock: Callable[[], int], sleep: Callable[[float], None]) -> None:
        """Use `clock` (nanoseconds) and `sleep` (seconds)."""
        self._period_ns, self._clock, self._sleep = period_ns, clock, sleep
        self._next_ns = 0

    def wait(self) -> None:
        """Wait for the next moment; the first one is now."""
        now_ns = self._clock()
        if now_ns < self._next_ns:
            self._sleep((self._next_ns - now_ns) / 1e9)
        self._next_ns = max(self._next_ns, now_ns) + self._period_ns


class Heartbeat:
    """Sends heartbeats between executions, and says whether to continue."""

    def __init__(
        self,
        client_is_there: Callable[[], bool],
        beat: Callable[[int], None],
        every_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send heartbeats with the number of executions so far by `beat`, at least `every_s` seconds apart."""
        self._client_is_there, self._beat = client_is_there, beat
        self._every_s, self._clock_s = every_s, clock_s
        self._last_s = clock_s()

    def __call__(self, executions: int) -> bool:
        """Send a heartbeat if it is due; return whether the client is still there."""
        if self._clock_s() - self._last_s >= self._every_s:
            self._beat(executions)
            self._last_s = self._clock_s()
        return self._client_is_there()


@contextmanager
def heartbeats_during(beat: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call `beat` every `every_s` seconds (0: never) from a thread of its own, until that raises OSError.

    No call is under way any more when the context ends.
    """
    if not every_s:
        yield
        return
    done = threading.Event()

    def run() -> None:
        try:
            while not done.wait(every_s):
                beat()
        except OSError:
            return

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


WINDOW_NS = 50_000_000
"""Shortest window of warm-up rounds: more than the 32 ms in which Linux' load tracking, which chooses the
clock, forgets half of the past.
"""

WINDOW_ROUNDS = 15
"""A window's medians are those of its last rounds, so that a warm-up of tiny models stores no more than this."""

FALL_PERCENT = 1
"""A window is still falling if the sum of its medians is lower than that of the window before by more than
this.
"""

STEADY_WINDOWS = 2
"""Windows in a row that must not fall: a single one may be slow by chance."""


class AdaptiveWarmup:
    """Warm-up by rounds, each of which executes every model once, until latencies stop falling.

    Attributes:
        ns: Time spent in the models.
        rounds: How often each model was executed.
        steady: Whether latencies had stopped falling at the end, rather than the time being up.
    """

    def __init__(self, bound_ns: int) -> None:
        """Warm up for at most `bound_ns` nanoseconds in the models."""
        self._bound_ns = bound_ns
        self.ns = self.rounds = 0
        self.steady = False
        self._last_rounds: deque[Sequence[int]] = deque(maxlen=WINDOW_ROUNDS)
        self._window_ns = self._quiet_windows = 0
        self._level_ns: int | None = None

    def add_round(self, round_ns: Sequence[int]) -> bool:
        """Add a round's nanoseconds, one for each model; return whether another round is needed."""
        taken_ns = sum(round_ns)
        self.ns += taken_ns
        self.rounds += 1
        self._window_ns += taken_ns
        self._last_rounds.append(round_ns)
        if self._window_ns >= WINDOW_NS:
            self._end_window()
        return not self.steady and self.ns < self._bound_ns

    def _end_window(self) -> None:
        middle = (len(self._last_rounds) - 1) // 2
        level_ns = sum(sorted(times)[middle] for times in zip(*self._last_rounds, strict=True))
        if self._level_ns is not None:
            fell = 100 * level_ns < (100 - FALL_PERCENT) * self._level_ns
            self._quiet_windows = 0 if fell else self._quiet_windows + 1
        self._level_ns, self._window_ns = level_ns, 0
        self._last_rounds.clear()
        self.steady = self._quiet_windows >= STEADY_WINDOWS


_INPUT_SEED = 20240501

_TimesPiece = Callable[[Sequence[int]], np.ndarray | list[int]]


def random_inputs(specs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """Return the same inputs for every model of one shape: standard normal floats, zeros for other types.

    Zeros are valid as indices and masks. Floats are random: zeros and denormals have speeds of their own.
    """
    rng = np.random.default_rng(_INPUT_SEED)
    return [
        rng.standard_normal(spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else np.zeros(spec.shape, spec.dtype)
        for spec in specs
    ]


@dataclass(frozen=True)
class TimingOptions:
    """How calls of a schedule are prepared.

    Attributes:
        piece_s: Longest time between two questions whether to continue.
        warmup: Warm-up by time before the first round.
        pace: Waited for before every call of a round.
        spin: Keeps the processor busy before calls.
    """

    piece_s: float = math.inf
    warmup: AdaptiveWarmup | None = None
    pace: Pace | None = None
    spin: Callable[[], None] | None = None


def time_schedule(
    models: Sequence[Model],
    order: Sequence[Sequence[int]],
    warmup: int,
    go_on: Callable[[int], bool],
    clock: Callable[[], int],
    options: TimingOptions | None = None,
) -> np.ndarray:
    """Return nanoseconds [rounds, calls] as big-endian u64; only a model's `execute` runs between two clock reads.

    The clock is not read if the models' runtime times them itself, a round at a time.

    Args:
        models: Loaded models.
        order: `order[r][c]` is the index of the model of call c in round r.
        warmup: Executions of every model before everything else.
        go_on: Called with the number of executions so far before every round, and within one that is expected
            to last longer than `options.piece_s`; returns whether to continue.
        clock: Monotonic nanoseconds.
        options: Warm-up by time, pace, keep-warm.

    Raises:
        AgentError: `cancelled` if not to be continued, `run_failed` if the runtime fails, `internal` if the
                clock runs backwards.
    """
    options = options or TimingOptions()
    adaptive = options.warmup
    wait_first = [options.pace.wait] if options.pace else []
    spin_first = [options.spin] if options.spin else []
    timed = _TimedCalls(_call_timer(models, clock), go_on, options.piece_s)
    samples = np.zeros((len(order), len(order[0])), dtype=">u8")
    gc.collect()
    gc.disable()
    try:
        for index in range(len(models)):
            timed.time([index] * warmup)
        while adaptive and adaptive.add_round(timed.after(spin_first, range(len(models)))):
            pass
        for row, calls in zip(samples, order, strict=True):
            row[:] = timed.after(wait_first + spin_first, calls)
    except RuntimeError as error:
        raise AgentError("run_failed", f"the runtime failed: {' '.join(str(error).split())[:200]}") from None
    except OverflowError:  # a negative duration
        why = "the device's clock ran backwards during a call; run the same command again"
        raise AgentError("internal", why) from None
    finally:
        gc.enable()
    return samples


class _TimedCalls:
    """Times calls in pieces that are expected to last at most `piece_s`, but of one call at least."""

    def __init__(self, time_piece: _TimesPiece, go_on: Callable[[int], bool], piece_s: float) -> None:
        self._time_piece, self._go_on, self._piece_ns = time_piece, go_on, 1e9 * piece_s
        self._executions, self._slowest_ns = 0, 0

    def time(self, calls: Sequence[int]) -> list[int]:
        """Return the nanoseconds of each call; raises AgentError `cancelled`."""
        times_ns: list[int] = []
        while len(times_ns) < len(calls):
            if not self._go_on(self._executions):
                raise AgentError("cancelled", "the client went away during the run")
            expected = 1.0 if not self._slowest_ns else max(1.0, self._piece_ns / self._slowest_ns)
            left = calls[len(times_ns) :]
            piece_ns = [int(ns) for ns in self._time_piece(left[: int(min(len(left), expected))])]
            times_ns += piece_ns
            self._executions += len(piece_ns)
            self._slowest_ns = max(self._slowest_ns, *piece_ns)
        return times_ns

    def after(self, steps: Sequence[Callable[[], None]], calls: Sequence[int]) -> list[int]:
        """Return the nanoseconds of each call, with these steps done before each of them."""
        if not steps:
            return self.time(calls)
        times_ns: list[int] = []
        for index in calls:
            for step in steps:
                step()
            times_ns += self.time([index])
        return times_ns


def _call_timer(models: Sequence[Model], clock: Callable[[], int]) -> _TimesPiece:
    """Return a function that calls models by their indices and returns the nanoseconds of each call.

    The interpreter times a model that does not time itself, or not together with the others.
    """
    prepared = [(model.prepare(random_inputs(model.inputs)), model.execute) for model in models]
    timer = models[0].time_visits
    if timer is not None and len({type(model) for model in models}) == 1:
        return lambda calls: timer([models[index] for index in calls])

    def time_visits(calls: Sequence[int]) -> list[int]:
        latencies_ns = []
        for index in calls:
            set_inputs, execute = prepared[index]
            set_inputs()
            start_ns = clock()
            execute()
            end_ns = clock()
            latencies_ns.append(end_ns - start_ns)
        return latencies_ns

    return time_visits
