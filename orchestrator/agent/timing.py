"""The timing loop: the one place where latency is measured on the host."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.agent.pace import Pace
from orchestrator.agent.ramp import Ramp
from orchestrator.agent.runtime.model import Model, TimesVisits
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import TensorSpec

_INPUT_SEED = 20240501

_TimesPiece = Callable[[Sequence[int]], np.ndarray | list[int]]


def random_inputs(specs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """The same inputs for every model of one shape: standard normal floats, zeros for the other types.

    Zeros are valid as indices and masks. Floats are random: zeros and denormals have speeds of their own.
    """
    rng = np.random.default_rng(_INPUT_SEED)
    return [
        rng.standard_normal(spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else np.zeros(spec.shape, spec.dtype)
        for spec in specs
    ]


def time_schedule(
    models: Sequence[Model],
    order: Sequence[Sequence[int]],
    warmup: int,
    go_on: Callable[[int], bool],
    clock: Callable[[], int],
    piece_s: float = math.inf,
    ramp: Ramp | None = None,
    pace: Pace | None = None,
    spin: Callable[[], None] | None = None,
) -> np.ndarray:
    """Nanoseconds [rounds, visits] as big-endian u64; only a model's `execute` lies between two clock reads.

    `order[r][v]` indexes `models`; each is first executed `warmup` times, and then all of them in turn for as long
    as `ramp`, which is told the times, goes on. Before every round, and within one that is expected to last longer
    than `piece_s`, `go_on` is told how many executions there were; it ends the run with OpError `cancelled`. `pace`
    is waited for before every visit of a round, `spin` keeps the processor
    busy before visits. `clock` tells monotonic nanoseconds; it is not read where the
    models' runtime times them itself, a round at a time. Raises OpError `run_failed` where the runtime fails.
    """
    visits = _Visits(_visits_timer(models, clock), go_on, piece_s)
    samples = np.zeros((len(order), len(order[0])), dtype=">u8")
    gc.collect()
    gc.disable()
    try:
        for index in range(len(models)):
            visits.time([index] * warmup)
        while ramp and ramp.goes_on(visits.after(spin, range(len(models)))):
            pass
        for row, visited in zip(samples, order, strict=True):
            row[:] = visits.after(_waiting(pace, spin), visited)
    except RuntimeError as error:
        raise OpError("run_failed", f"the runtime failed: {' '.join(str(error).split())[:200]}") from None
    finally:
        gc.enable()
    return samples


class _Visits:
    """Times visits in pieces that are expected to last no longer than `piece_s`, or are one visit; the first is."""

    def __init__(self, time_piece: _TimesPiece, go_on: Callable[[int], bool], piece_s: float) -> None:
        self._time_piece, self._go_on, self._piece_ns = time_piece, go_on, 1e9 * piece_s
        self._executions, self._slowest_ns = 0, 0

    def time(self, visited: Sequence[int]) -> list[int]:
        """Nanoseconds of each; OpError `cancelled` where it is not to go on."""
        times_ns: list[int] = []
        while len(times_ns) < len(visited):
            if not self._go_on(self._executions):
                raise OpError("cancelled", "the client went away during the run")
            expected = 1.0 if not self._slowest_ns else max(1.0, self._piece_ns / self._slowest_ns)
            left = visited[len(times_ns) :]
            piece_ns = [int(ns) for ns in self._time_piece(left[: int(min(len(left), expected))])]
            times_ns += piece_ns
            self._executions += len(piece_ns)
            self._slowest_ns = max(self._slowest_ns, *piece_ns)
        return times_ns

    def after(self, before: Callable[[], None] | None, visited: Sequence[int]) -> list[int]:
        """`time` with something done before each of them."""
        if before is None:
            return self.time(visited)
        times_ns: list[int] = []
        for index in visited:
            before()
            times_ns += self.time([index])
        return times_ns


def _waiting(pace: Pace | None, spin: Callable[[], None] | None) -> Callable[[], None] | None:
    """What comes before a visit of a round."""
    if pace is None or spin is None:
        return spin if pace is None else pace.wait

    def wait() -> None:
        pace.wait()
        spin()

    return wait


def _visits_timer(models: Sequence[Model], clock: Callable[[], int]) -> _TimesPiece:
    """What visits models by their indices and tells the nanoseconds of each visit.

    The interpreter does it where a model does not time itself, or not together with the others.
    """
    calls = [(model.prepare(random_inputs(model.inputs)), model.execute) for model in models]
    first = models[0]
    if isinstance(first, TimesVisits) and len({type(model) for model in models}) == 1:
        timer = first
        return lambda visited: timer.time_visits([models[index] for index in visited])

    def time_visits(visited: Sequence[int]) -> list[int]:
        latencies_ns = []
        for index in visited:
            set_inputs, execute = calls[index]
            set_inputs()
            start_ns = clock()
            execute()
            end_ns = clock()
            latencies_ns.append(end_ns - start_ns)
        return latencies_ns

    return time_visits
