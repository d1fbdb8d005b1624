"""The timing loop: the one place where latency is measured on the host."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.agent.errors import OpError
from orchestrator.agent.runtime import Model, TimesVisits
from orchestrator.wire.messages import TensorSpec

_INPUT_SEED = 20240501


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
    go_on: Callable[[], bool],
    clock: Callable[[], int],
) -> np.ndarray:
    """Nanoseconds [rounds, visits] as big-endian u64; only a model's `execute` lies between two clock reads.

    `order[r][v]` indexes `models`; each is first executed `warmup` times. `go_on` is asked between rounds and
    ends the run with OpError `cancelled`. `clock` tells monotonic nanoseconds; it is not read where the models'
    runtime times them itself, a round at a time. Raises OpError `run_failed` where the runtime fails.
    """
    time_visits = _visits_timer(models, clock)
    samples = np.zeros((len(order), len(order[0])), dtype=">u8")
    gc.collect()
    gc.disable()
    try:
        for index in range(len(models)):
            time_visits([index] * warmup)
        for row, visited in zip(samples, order, strict=True):
            if not go_on():
                raise OpError("cancelled", "the client went away during the run")
            row[:] = time_visits(visited)
    except RuntimeError as error:
        raise OpError("run_failed", f"the runtime failed: {' '.join(str(error).split())[:200]}") from None
    finally:
        gc.enable()
    return samples


def _visits_timer(
    models: Sequence[Model], clock: Callable[[], int]
) -> Callable[[Sequence[int]], np.ndarray | list[int]]:
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
