"""Where a supernet computes, as people name it: for training, evaluation and studies alike."""

from __future__ import annotations

import torch

from luts.format.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(on: str, worker: int = 0) -> torch.device:
    """`cpu`, `cuda`, `mps`, or `auto`: a GPU where there is a CUDA one.

    Args:
        on: One of `DEVICES`.
        worker: Which of several processes asks; they take the GPUs in turn.

    Raises:
        UsageError: another name, or no such device here.
    """
    if on not in DEVICES:
        raise UsageError(f"no device {on!r} to compute on; use {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    gpus = torch.cuda.device_count()
    if on == "cpu" or (on == "auto" and not gpus):
        return torch.device("cpu")
    if on == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("no Metal device here for --on mps; use cpu")
        return torch.device("mps")
    if not gpus:
        raise UsageError("no CUDA device here for --on cuda; use cpu")
    return torch.device("cuda", worker % gpus)


def workers_on(kind: str, cores: int) -> int:
    """Evaluating processes on a kind of device (`cpu`, `cuda`, `mps`): one a GPU, or one a core."""
    return cores if kind == "cpu" else max(1, torch.cuda.device_count())
