"""Export a module to ONNX with PyTorch's own exporter, and run the file, for comparison with ExecuTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError, first_line
from orchestrator.export.lower.quiet import quiet

MISSING = "ONNX Runtime and the exporter's packages are not installed ({}); pip install 'blocktime[onnx]'"


def lower_to_onnx(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """Return the module without our rewrites, in one file with its weights; the runtime fuses what it can.

    Raises:
        BlocktimeError: A package is missing, or an operator has no ONNX counterpart.
    """
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(module, tuple(inputs), dynamo=True, verbose=False)
        except ImportError as error:
            raise BlocktimeError(MISSING.format(error.name), code="missing_package") from None
        except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError) as error:
            raise BlocktimeError(
                f"ONNX can't express this model: {first_line(error)}", code="unsupported_operator"
            ) from error
    if program is None:
        raise BlocktimeError(
            "PyTorch's ONNX exporter gave no program; export for another runtime", code="export_failed"
        )
    return bytes(program.model_proto.SerializeToString())


def run_onnx(data: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of a model, run in this process on one thread.

    Raises:
        BlocktimeError: ONNX Runtime is missing.
        InvalidArtifactError: It refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BlocktimeError(MISSING.format(error.name), code="missing_package") from None
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads, how.log_severity_level = 1, 3
    try:
        session = onnxruntime.InferenceSession(data, how, providers=["CPUExecutionProvider"])
        given = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]
    except Exception as error:  # its errors have no base class but Exception
        raise InvalidArtifactError(
            f"ONNX Runtime refuses the model ({first_line(error)})", code="runtime_refused"
        ) from error
