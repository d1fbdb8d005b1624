"""Convert a module to a Core ML package (.mlpackage) and check the ML program that came out."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export.lower.executorch import first_line
from orchestrator.export.lower.mil import UnknownOperatorError, evaluate
from orchestrator.export.lower.quantize import QUANTISED_OPERATORS, quantize_w8a8
from orchestrator.export.lower.quiet import quiet
from search.networks.fusion import fuse_for_inference

_FREE_OPERATORS = {"const", "cast"}
"""Operators that compute nothing: constants, and conversions between the interface's type and the program's."""

_COMPUTES_IN = {"fp32": "fp32", "fp16": "fp16", "int8": "fp16"}
"""Floating-point type of every operator by precision; for int8, of what is not quantised."""

_NAMESPACE = uuid.UUID("6f1d2c1e-7d53-4f0f-9e0c-5b1f0a6c7c11")


@dataclass(frozen=True)
class MlProgram:
    """What the ML program holds: operators with counts, and shapes of its inputs and outputs.

    `computed`: its outputs for the example inputs, evaluated in PyTorch; None where it has operators that the
    evaluation does not know.
    """

    operators: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    computed: tuple[Tensor, ...] | None = None


def convert_to_mlpackage(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    precision: str = "fp16",
    deployment_target: str = "iOS16",
    images: Tensor | None = None,
) -> MlProgram:
    """Convert an eval-mode module and save the package at `path`.

    Inputs and outputs have the program's own type from iOS16 on (fp16 for int8), and are fp32 on iOS15.
    `images` (N, 3, H, W) decide int8's ranges, seeded inputs without.

    Raises:
        BlocktimeError: an operator has no Core ML counterpart, or for int8 no evaluation; it is named.
        InvalidArtifactError: the program has other shapes or another precision than was asked for.
    """
    with quiet(), torch.no_grad():
        import coremltools

        folded = fuse_for_inference(module)
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
                compute_precision=coremltools.precision("float32" if precision == "fp32" else "float16"),
                skip_model_load=True,
            )
            if precision == "int8":
                model = quantize_w8a8(model, inputs, images)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError, AssertionError) as error:
            raise BlocktimeError(f"Core ML cannot convert this model: {first_line(error)}") from error
        program = check_program(model, precision, inputs, expected)
        with contextlib.suppress(UnknownOperatorError):
            computed = evaluate(model._mil_program.functions["main"], inputs)
            program = replace(program, computed=tuple(computed))
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
    wanted = _COMPUTES_IN[precision]
    operators: Counter[str] = Counter()
    for operation in function.operations:
        operators[operation.op_type] += operation.op_type != "const"
        if operation.op_type in _FREE_OPERATORS:
            continue
        if precision == "int8" and operation.op_type in QUANTISED_OPERATORS:
            _check_quantised(operation)
        for variable in operation.outputs:
            dtype = _dtype_name(variable)
            if dtype in ("fp16", "fp32") and dtype != wanted:
                raise InvalidArtifactError(
                    f"Core ML operator {operation.op_type} ({operation.name}) computes in {dtype}, not in {wanted}"
                )
    counts = tuple(sorted((name, count) for name, count in operators.items() if count))
    return MlProgram(counts, tuple(shapes), tuple(results))


def _check_quantised(operation: Any) -> None:
    """Both the activation and the weight of an operator come from int8."""
    activation, weight = operation.x.op, operation.weight.op
    if activation is None or activation.op_type != "dequantize":
        raise InvalidArtifactError(f"Core ML operator {operation.name} takes an activation that is not int8")
    if weight is None or not weight.op_type.startswith("constexpr_"):
        raise InvalidArtifactError(f"Core ML operator {operation.name} has a weight that is not int8")


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
