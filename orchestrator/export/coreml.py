"""Convert a module to a Core ML package (.mlpackage) and check the ML program that came out."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luts.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export.executorch import first_line
from orchestrator.export.quiet import quiet
from orchestrator.export.rewrite import fold_batchnorm

_FREE_OPERATORS = {"const", "cast"}
"""Operators that compute nothing: constants, and conversions between the interface's type and the program's."""

_NAMESPACE = uuid.UUID("6f1d2c1e-7d53-4f0f-9e0c-5b1f0a6c7c11")


@dataclass(frozen=True)
class MlProgram:
    """What the ML program holds: operators with counts, and shapes of its inputs and outputs."""

    operators: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def convert_to_mlpackage(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    precision: str = "fp16",
    deployment_target: str = "iOS16",
) -> MlProgram:
    """Convert an eval-mode module and save the package at `path`; inputs and outputs are fp32.

    Raises:
        BlocktimeError: an operator has no Core ML counterpart; it is named.
        InvalidArtifactError: the program has other shapes or another precision than was asked for.
    """
    with quiet(), torch.no_grad():
        import coremltools

        folded = fold_batchnorm(module)
        expected = folded(*inputs)
        expected = (expected,) if isinstance(expected, Tensor) else tuple(expected)
        try:
            traced = torch.jit.trace(folded, tuple(inputs))  # type: ignore[no-untyped-call]
            model = coremltools.convert(
                traced,
                inputs=[
                    coremltools.TensorType(name=f"input_{i}", shape=tuple(x.shape))
                    for i, x in enumerate(inputs)
                ],
                outputs=[coremltools.TensorType(name=f"output_{i}") for i in range(len(expected))],
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[deployment_target],
                compute_precision=coremltools.precision("float16" if precision == "fp16" else "float32"),
                skip_model_load=True,
            )
        except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError, AssertionError) as error:
            raise BlocktimeError(f"Core ML cannot convert this model: {first_line(error)}") from error
        program = check_program(model, precision, inputs, expected)
        model.save(str(path))
    _fix_identifiers(path)
    return program


def check_program(
    model: Any, precision: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> MlProgram:
    """Check shapes and the precision of computation of a converted model.

    Raises:
        InvalidArtifactError: names what differs.
    """
    description = model.get_spec().description
    shapes = [tuple(f.type.multiArrayType.shape) for f in description.input]
    # Fixed output shapes stand in the program, not always in the interface.
    function = model._mil_program.functions["main"]
    results = [tuple(variable.shape) for variable in function.outputs]
    if shapes != [tuple(x.shape) for x in inputs] or results != [tuple(x.shape) for x in outputs]:
        raise InvalidArtifactError(
            f"Core ML program takes {shapes} and gives {results}; expected {[tuple(x.shape) for x in inputs]} "
            f"and {[tuple(x.shape) for x in outputs]}"
        )
    wanted = "fp16" if precision == "fp16" else "fp32"
    operators: Counter[str] = Counter()
    for operation in function.operations:
        operators[operation.op_type] += operation.op_type != "const"
        if operation.op_type in _FREE_OPERATORS:
            continue
        for variable in operation.outputs:
            dtype = _dtype_name(variable)
            if dtype in ("fp16", "fp32") and dtype != wanted:
                raise InvalidArtifactError(
                    f"Core ML operator {operation.op_type} ({operation.name}) computes in {dtype}, not in {wanted}"
                )
    counts = tuple(sorted((name, count) for name, count in operators.items() if count))
    return MlProgram(counts, tuple(shapes), tuple(results))


def _dtype_name(variable: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(variable.dtype))


def _fix_identifiers(path: Path) -> None:
    """Replace the random identifiers of a package's manifest, so that equal models have equal bytes."""
    manifest_path = path / "Manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    renamed = {old: str(uuid.uuid5(_NAMESPACE, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {renamed[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    manifest_path.write_text(json.dumps(manifest, indent=2, sort_keys=True), encoding="utf-8")
