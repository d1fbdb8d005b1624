"""Parity check: the exported program's outputs against PyTorch's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError
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


def run_pte_isolated(
    data: bytes, inputs: Sequence[Tensor], timeout_s: float = CHILD_TIMEOUT_S
) -> list[Tensor]:
    """Run `run_pte` in a fresh process, so that a crash of the runtime becomes an error.

    Raises:
        InvalidArtifactError: The runtime refuses the program, crashes on it or hangs.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    try:
        ours.send((data, [x.numpy() for x in inputs]))
        if not ours.poll(timeout_s):
            raise InvalidArtifactError(
                f"the program gave no output within {timeout_s:g} s", code="runtime_hangs"
            )
        answer = ours.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        child.join()
        raise InvalidArtifactError(
            f"the runtime crashed on the program (exit code {child.exitcode}); export it again",
            code="runtime_crashed",
        ) from None
    finally:
        child.kill()
        child.join()
        ours.close()
    if isinstance(answer, str):
        raise InvalidArtifactError(answer, code="runtime_refused")
    return [torch.from_numpy(array) for array in answer]


def _child(connection: Connection) -> None:
    data, arrays = connection.recv()
    try:
        outputs = run_pte(data, [torch.from_numpy(array) for array in arrays])
    except InvalidArtifactError as error:
        connection.send(str(error))
        return
    connection.send([output.numpy() for output in outputs])
