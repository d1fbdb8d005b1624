"""Parity check: the exported program's outputs against PyTorch's."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError
from luts.format.processes import WorkerCrashError, WorkerPool
from orchestrator.export.artifacts.artifact import RELATIVE_TOLERANCE

CHILD_TIMEOUT_S = 600.0
"""A program without an answer by then hangs; the slowest supported model takes seconds."""

MISSING_OPERATOR = "0x14"
"""ExecuTorch's error code `OperatorMissing`."""

RUNNABLE_BACKENDS = ("xnnpack", "portable")
"""ExecuTorch backends that run on the host."""


@dataclass(frozen=True)
class Parity:
    """Largest difference to PyTorch, absolute and relative to the largest absolute output of PyTorch."""

    max_abs_error: float
    max_relative_error: float


def check_parity(
    outputs: Sequence[Tensor],
    module: nn.Module,
    inputs: Sequence[Tensor],
    tolerance: float = RELATIVE_TOLERANCE,
) -> Parity:
    """Compare a program's outputs with those of the module.

    Raises:
        InvalidArtifactError: Other shapes, a value that is not finite, or a relative error above `tolerance`.
    """
    with torch.no_grad():
        expected = module(*inputs)
    expected = (expected,) if isinstance(expected, Tensor) else tuple(expected)
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in expected]:
        raise InvalidArtifactError(
            "the exported model has outputs of other shapes than PyTorch; not kept", code="wrong_outputs"
        )
    max_abs = max_relative = 0.0
    for own, reference in zip(outputs, expected, strict=True):
        if not (torch.isfinite(own).all() and torch.isfinite(reference).all()):
            raise InvalidArtifactError(
                "the exported model or PyTorch gives values that are not finite; not kept", code="not_finite"
            )
        error = (own.double() - reference.double()).abs().max().item()
        scale = reference.double().abs().max().item()
        max_abs = max(max_abs, error)
        max_relative = max(max_relative, error / scale if scale else error)
    if max_relative > tolerance:
        raise InvalidArtifactError(
            f"the exported model differs from PyTorch by {max_relative:.2g} of its output's scale "
            f"(allowed: {tolerance:.2g}); not kept",
            code="wrong_outputs",
        )
    return Parity(max_abs, max_relative)


def run_pte(data: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of a .pte, run in this process: a malformed program can crash it.

    Raises:
        InvalidArtifactError: The runtime refuses the program.
    """
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    try:
        program = _load_for_executorch_from_buffer(data)
        return [output.clone() for output in program.run_method("forward", tuple(inputs))]
    except RuntimeError as error:
        if MISSING_OPERATOR not in str(error):
            raise InvalidArtifactError(
                f"ExecuTorch refuses the program ({error})", code="runtime_refused"
            ) from error
        raise InvalidArtifactError(
            f"the runtime has no {' and no '.join(missing_operators(data))}, which the backend does not take "
            "either; write the network with another operation or choose another --backend",
            code="unsupported_operator",
        ) from error


def missing_operators(data: bytes) -> list[str]:
    """Return operators of a .pte outside its delegates that this machine's runtime does not have."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.extension.pybindings.portable_lib import _get_operator_names

    known = set(_get_operator_names())
    plans = deserialize_pte_binary(data).program.execution_plan
    used = {f"{op.name}.{op.overload}" if op.overload else op.name for plan in plans for op in plan.operators}
    return sorted(used - known)


def run_pte_isolated(data: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run `run_pte` in a fresh process, so that a crash of the runtime becomes an error.

    Raises:
        InvalidArtifactError: The runtime refuses the program, crashes on it or hangs.
    """
    arrays = [x.numpy() for x in inputs]
    try:
        with WorkerPool(_start_isolated, (CHILD_TIMEOUT_S,), 1) as pool:
            (outputs,) = pool.map([(data, arrays)])
    except WorkerCrashError as error:
        if error.exit_code == -signal.SIGALRM:
            raise InvalidArtifactError(
                f"the program gave no output within {CHILD_TIMEOUT_S:g} s; export it again",
                code="runtime_hangs",
            ) from None
        raise InvalidArtifactError(
            f"the runtime crashed on the program ({error.cause}); export it again",
            code="runtime_crashed",
        ) from None
    return [torch.from_numpy(array) for array in outputs]


def _start_isolated(
    _number: int, timeout_s: float
) -> Callable[[tuple[bytes, list[np.ndarray]]], list[np.ndarray]]:
    def run(task: tuple[bytes, list[np.ndarray]]) -> list[np.ndarray]:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        data, arrays = task
        return [output.numpy() for output in run_pte(data, [torch.from_numpy(array) for array in arrays])]

    return run
