"""Export a module to ONNX and LiteRT (.tflite), and run the files, for comparison with ExecuTorch.

litert-torch needs an older typing-extensions than other packages here, so it has an environment of its own
(`make litert`, tools/toolchains/litert.sh) and converts in a process of that.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError, first_line, install_extra
from luts.format.provenance import ROOT
from orchestrator.export.lower import quiet

MISSING = f"ONNX Runtime and the exporter's packages are not installed ({{}}); {install_extra('onnx')}"


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


CONVERTER = ROOT / ".toolchains" / "litert" / "bin" / "python"
"""Python of the environment that has litert-torch."""

TIMEOUT_S = 1800.0
"""A conversion that takes longer hangs; the slowest network took two minutes."""

_CONVERSION = """\
import sys

import litert_torch
import torch

program = torch.export.load(sys.argv[1])
inputs, _ = program.example_inputs
litert_torch.convert(program.module(), inputs).export(sys.argv[2])
"""
"""Turns a captured program (.pt2) into a .tflite; runs in the converter's environment, which lacks our packages.

`-P` keeps modules of the working directory from hiding those of that environment.
"""


def lower_to_litert(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """Return the module without our rewrites, with its weights.

    Raises:
        BlocktimeError: The converter is missing, or it can't convert the module.
    """
    if not CONVERTER.is_file():
        raise BlocktimeError(
            "the converter to LiteRT is not installed; run `make litert` in a checkout",
            code="missing_package",
        )
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
        captured, converted = Path(folder) / "model.pt2", Path(folder) / "model.tflite"
        try:
            torch.export.save(torch.export.export(module, tuple(inputs)), captured)
        except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
            raise BlocktimeError(
                f"PyTorch can't capture this model: {first_line(error)}", code="unsupported_operator"
            ) from error
        command = [str(CONVERTER), "-P", "-c", _CONVERSION, str(captured), str(converted)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BlocktimeError(
                f"litert-torch has not converted this model in {TIMEOUT_S:.0f} s", code="export_timeout"
            ) from None
        if ended.returncode:
            message = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            raise BlocktimeError(
                f"LiteRT can't express this model: {message[0][:300]}", code="unsupported_operator"
            )
        return converted.read_bytes()


def run_litert(data: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of a model, run in this process on one thread.

    Raises:
        BlocktimeError: LiteRT is missing.
        InvalidArtifactError: It refuses the model.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise BlocktimeError(
            f"LiteRT is not installed; {install_extra('litert')}", code="missing_package"
        ) from None
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        for tensor, x in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(tensor["index"], x.numpy())
        interpreter.invoke()
        ids = [tensor["index"] for tensor in interpreter.get_output_details()]
        return [torch.from_numpy(interpreter.get_tensor(index)) for index in ids]
    except (RuntimeError, ValueError) as error:
        raise InvalidArtifactError(
            f"LiteRT refuses the model ({first_line(error)})", code="runtime_refused"
        ) from error
