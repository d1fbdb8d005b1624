"""The timing loop: the one place where latency is measured on the host."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.agent.errors import OpError
from orchestrator.agent.runtime import Model
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
    ends the run with OpError `cancelled`. `clock` tells monotonic nanoseconds. Raises OpError `run_failed` where
    the runtime fails.
    """
    calls = [(model.prepare(random_inputs(model.inputs)), model.execute) for model in models]
    samples = np.zeros((len(order), len(order[0])), dtype=">u8")
    gc.collect()
    gc.disable()
    try:
        for set_inputs, execute in calls:
            for _ in range(warmup):
                set_inputs()
                execute()
        for row, visited in zip(samples, order, strict=True):
            if not go_on():
                raise OpError("cancelled", "the client went away during the run")
            for position, index in enumerate(visited):
                set_inputs, execute = calls[index]
                set_inputs()
                start_ns = clock()
                execute()
                end_ns = clock()
                row[position] = end_ns - start_ns
    except RuntimeError as error:
        raise OpError("run_failed", f"the runtime failed: {' '.join(str(error).split())[:200]}") from None
    finally:
        gc.enable()
    return samples
