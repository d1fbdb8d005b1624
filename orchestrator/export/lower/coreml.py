"""Convert a module to a Core ML package (.mlpackage) and check the resulting ML program."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from luts.format.errors import BlocktimeError, InvalidArtifactError, first_line
from orchestrator.export.lower import quiet
from orchestrator.export.lower.calibration import calibration_inputs
from search.networks.layers import fuse_for_inference

if TYPE_CHECKING:
    from orchestrator.export.lower.quantize import ExtremesObserver, MiddleObserver


_DATA = Path("Data") / "com.apple.CoreML"


def read_package(package: Path) -> Any:
    """Return the MIL function of an `.mlpackage` folder, for `evaluate`.

    Raises:
        InvalidArtifactError: It can't be read, or has no ML program.
    """
    with quiet():
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.models.utils import load_spec

        try:
            spec = load_spec(str(package))
            program = load(spec, spec.specificationVersion, str(package / _DATA / "weights"))
            return program.functions["main"]
        except Exception as error:  # protobuf's, coremltools' and the weight reader's, of any kind
            raise InvalidArtifactError(
                f"{package}: no ML program can be read from it ({type(error).__name__}); export it again",
                code="invalid_file",
            ) from error


Inputs = Mapping[str, Any]
Observer = Callable[[str, Tensor], None]
"""Called with the name and the value of every activation, including the program's inputs."""


class UnknownOperatorError(BlocktimeError):
    """The program has an operator, or a mode of one, that this evaluation does not support."""


def evaluate(
    function: Any,
    inputs: Sequence[Tensor],
    observe: Observer | None = None,
    constants: dict[str, Any] | None = None,
) -> list[Tensor]:
    """Return the outputs of a MIL function (`program.functions["main"]`) for its inputs in order.

    Unpacked constants are stored in `constants`, for further inputs of the same function.

    Raises:
        UnknownOperatorError: Names the operator.
    """
    values: dict[str, Any] = {}
    constants = {} if constants is None else constants

    def keep(name: str, value: Any) -> None:
        values[name] = value
        if observe is not None and isinstance(value, Tensor):
            observe(name, value)

    def value_of(variable: Any) -> Any:
        if isinstance(variable, list | tuple):
            return [value_of(one) for one in variable]
        if variable.name in values:
            return values[variable.name]
        if variable.name not in constants:
            constants[variable.name] = _constant(variable)
        return constants[variable.name]

    with torch.no_grad():
        for name, x in zip(function.inputs, inputs, strict=True):
            keep(name, x.float())
        for operation in filter(_computes, function.operations):
            given = {name: value_of(variable) for name, variable in operation.inputs.items()}
            results = _run(operation, given)
            for variable, value in zip(operation.outputs, results, strict=True):
                keep(variable.name, value)
        return [value_of(variable) for variable in function.outputs]


def _computes(operation: Any) -> bool:
    return not (operation.op_type == "const" or operation.op_type.startswith("constexpr_"))


def _constant(variable: Any) -> Any:
    """Return a constant as PyTorch takes it: floating-point arrays as fp32 tensors, everything else unchanged."""
    if variable.op is not None and variable.op.op_type.startswith("constexpr_"):
        return torch.from_numpy(np.array(variable.op.materialized_val_inference(), dtype=np.float32))
    value = variable.val
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float32))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _run(operation: Any, given: Inputs) -> Sequence[Any]:
    operator = _OPERATORS.get(operation.op_type)
    if operator is None:
        raise UnknownOperatorError(
            f"no evaluation of the Core ML operator {operation.op_type}", code="unsupported_operator"
        )
    result = operator(given)
    return result if isinstance(result, tuple) else (result,)


def _conv(given: Inputs) -> Tensor:
    x, kind = given["x"], given["pad_type"]
    if x.ndim != 4 or kind not in ("valid", "custom"):
        raise UnknownOperatorError(
            f"no evaluation of a Core ML convolution of rank {x.ndim}, padding {kind}",
            code="unsupported_operator",
        )
    if kind == "custom":
        top, bottom, left, right = given["pad"]
        x = functional.pad(x, (left, right, top, bottom))
    return functional.conv2d(
        x,
        given["weight"],
        given.get("bias"),
        stride=given["strides"],
        dilation=given["dilations"],
        groups=given["groups"],
    )


def _stretch(given: Inputs) -> Tensor:
    """Resize bilinearly, with pixels as areas: half pixel centres are the default if corners are not aligned."""
    if given["align_corners"] or not given.get("half_pixel_centers", True):
        raise UnknownOperatorError(
            "no evaluation of a Core ML upsampling that does not take pixels as areas",
            code="unsupported_operator",
        )
    x, scales = given["x"], (given["scale_factor_height"], given["scale_factor_width"])
    size = [round(side * float(scale)) for side, scale in zip(x.shape[2:], scales, strict=True)]
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)


def _pad(given: Inputs) -> Tensor:
    if given["mode"] != "constant":
        raise UnknownOperatorError(
            f"no evaluation of Core ML's pad in mode {given['mode']}", code="unsupported_operator"
        )
    pairs = np.reshape(given["pad"], (-1, 2)).tolist()
    return functional.pad(
        given["x"], [side for pair in reversed(pairs) for side in pair], value=given["constant_val"]
    )


def _slice(given: Inputs) -> Tensor:
    x: Tensor = given["x"]
    rank = x.ndim
    none = [False] * rank
    begin_mask, end_mask = given.get("begin_mask") or none, given.get("end_mask") or none
    squeeze = given.get("squeeze_mask") or none
    steps = given.get("stride") or [1] * rank
    if any(squeeze) or any(step < 1 for step in steps):
        raise UnknownOperatorError(
            "no evaluation of a Core ML slice that drops or reverses a dimension", code="unsupported_operator"
        )
    return x[
        tuple(
            slice(None if open_begin else begin, None if open_end else end, step)
            for begin, end, step, open_begin, open_end in zip(
                given["begin"], given["end"], steps, begin_mask, end_mask, strict=True
            )
        )
    ]


def _layer_norm(given: Inputs) -> Tensor:
    x, axes = given["x"], tuple(given["axes"])
    centred = x - x.mean(axes, keepdim=True)
    normed: Tensor = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + given["epsilon"])
    if given.get("gamma") is not None:
        normed = normed * given["gamma"]
    if given.get("beta") is not None:
        normed = normed + given["beta"]
    return normed


def _matmul(given: Inputs) -> Tensor:
    x, y = given["x"], given["y"]
    x = x.transpose(-1, -2) if given.get("transpose_x") else x
    y = y.transpose(-1, -2) if given.get("transpose_y") else y
    return torch.matmul(x, y)


def _quantize(given: Inputs) -> Tensor:
    low, high = (-128, 127) if given["output_dtype"] == "int8" else (0, 255)
    zero = given.get("zero_point") or 0
    return (torch.round(given["input"] / given["scale"]) + zero).clamp(low, high)


def _dequantize(given: Inputs) -> Tensor:
    return (given["input"] - (given.get("zero_point") or 0)) * given["scale"]  # type: ignore[no-any-return]


_OPERATORS: Mapping[str, Callable[[Inputs], Any]] = {
    "add": lambda g: g["x"] + g["y"],
    "batch_norm": lambda g: functional.batch_norm(
        g["x"], g["mean"], g["variance"], g.get("gamma"), g.get("beta"), eps=float(g["epsilon"])
    ),
    "cast": lambda g: g["x"],
    "clip": lambda g: g["x"].clamp(g["alpha"], g["beta"]),
    "concat": lambda g: torch.cat(g["values"], g["axis"]),
    "conv": _conv,
    "dequantize": _dequantize,
    "layer_norm": _layer_norm,
    "linear": lambda g: functional.linear(g["x"], g["weight"], g.get("bias")),
    "matmul": _matmul,
    "mul": lambda g: g["x"] * g["y"],
    "pad": _pad,
    "quantize": _quantize,
    "reduce_mean": lambda g: g["x"].mean(tuple(g["axes"]), keepdim=g["keep_dims"]),
    "relu": lambda g: functional.relu(g["x"]),
    "reshape": lambda g: g["x"].reshape(g["shape"]),
    "sigmoid": lambda g: torch.sigmoid(g["x"]),
    "silu": lambda g: functional.silu(g["x"]),
    "slice_by_index": _slice,
    "softmax": lambda g: functional.softmax(g["x"], g["axis"]),
    "split": lambda g: torch.split(g["x"], g["split_sizes"], g["axis"]),
    "squeeze": lambda g: g["x"].squeeze(tuple(g["axes"])),
    "sub": lambda g: g["x"] - g["y"],
    "transpose": lambda g: g["x"].permute(g["perm"]),
    "upsample_bilinear": _stretch,
}


QUANTISED_OPERATORS = ("conv", "linear")
"""Operators whose weights become int8. Biases, norms and attention's products stay in fp16; coremltools does
not change them.
"""


def quantize_w8a8(model: Any, inputs: Sequence[Tensor], images: Tensor | None = None) -> Any:
    """Return the fp16 model with symmetric int8 activations (one scale per tensor) and weights (one per channel).

    The model is an `MLModel` for iOS17 or later, with its MIL program; see `calibration_inputs` for the others.

    Raises:
        UnknownOperatorError: The program can't be evaluated, hence not calibrated.
    """
    import coremltools
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.models import utils
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig

    ranges = _ranges(model._mil_program.functions["main"], inputs, images)
    activations = OptimizationConfig(global_config=OpLinearQuantizerConfig(mode="linear_symmetric"))
    passes = []
    for end in ("prefix", "suffix"):
        insert = PASS_REGISTRY[f"compression::insert_{end}_quantize_dequantize_pair"]
        insert.set_options([PassOption("config", activations), PassOption("activation_stats", ranges)])
        passes.append(insert)
    passes.append(PASS_REGISTRY["common::dequantize_quantize_pair_elimination"])
    # Every weight of the operators, however small: one that stays in fp16 would make its operator run in fp16.
    each = OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    weights = OptimizationConfig(op_type_configs=dict.fromkeys(QUANTISED_OPERATORS, each))
    compress = PASS_REGISTRY["compression::linear_quantize_weights"]
    compress.set_options([PassOption("config", weights), PassOption("joint_compression", False)])
    passes.append(compress)
    # One conversion for all passes; coremltools' own functions convert again for weights, a third of the time.
    return utils._apply_graph_pass(model, passes, spec_version=coremltools.target.iOS17, skip_model_load=True)


def _ranges(function: Any, inputs: Sequence[Tensor], images: Tensor | None) -> dict[str, dict[str, float]]:
    """Return the range of every activation, by the name in coremltools."""
    from orchestrator.export.lower.quantize import observer_for  # brings torchao

    observers: defaultdict[str, MiddleObserver | ExtremesObserver] = defaultdict(observer_for(images))
    for sample in calibration_inputs(inputs, images):
        evaluate(function, sample, lambda name, value: observers[name](value))
    ends = {name: observer.ends() for name, observer in observers.items()}
    return {name: {"rmin": float(low), "rmax": float(high)} for name, (low, high) in ends.items()}


_FREE_OPERATORS = {"const", "cast"}
"""Operators that compute nothing: constants, and conversions between the interface's type and the program's."""

_COMPUTES_IN = {"fp32": "fp32", "fp16": "fp16", "int8": "fp16"}
"""Floating-point type of every operator by precision; for int8, of operators that are not quantised."""

_NAMESPACE = uuid.UUID("6f1d2c1e-7d53-4f0f-9e0c-5b1f0a6c7c11")


@dataclass(frozen=True)
class MlProgram:
    """Operators of an ML program with their counts, and its outputs for the example inputs.

    The outputs are evaluated in PyTorch; None if it has unsupported operators.
    """

    operators: tuple[tuple[str, int], ...]
    computed: Sequence[Tensor] | None


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
    `images` (N, 3, H, W) decide int8's ranges, else seeded inputs.

    Raises:
        BlocktimeError: An operator has no Core ML counterpart, or for int8 no evaluation; it is named.
        InvalidArtifactError: The program has other shapes or another precision than requested.
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
            raise BlocktimeError(
                f"Core ML cannot convert this model: {first_line(error)}", code="unsupported_operator"
            ) from error
        operators, computed = check_program(model, precision, inputs, expected), None
        with contextlib.suppress(UnknownOperatorError):
            computed = evaluate(model._mil_program.functions["main"], inputs)
        model.save(str(path))
    _fix_identifiers(path)
    return MlProgram(operators, computed)


def check_program(
    model: Any, precision: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[tuple[str, int], ...]:
    """Check shapes and precision of a converted model, and return its operators with counts.

    Raises:
        InvalidArtifactError: Names the difference.
    """
    from coremltools.converters.mil.mil import types

    description = model.get_spec().description
    shapes = [tuple(f.type.multiArrayType.shape) for f in description.input]
    # Fixed output shapes stand in the program, not always in the interface.
    function = model._mil_program.functions["main"]
    results = [tuple(variable.shape) for variable in function.outputs]
    if shapes != [tuple(x.shape) for x in inputs] or results != [tuple(x.shape) for x in outputs]:
        raise InvalidArtifactError(
            f"Core ML program takes {shapes} and gives {results}; expected {[tuple(x.shape) for x in inputs]} "
            f"and {[tuple(x.shape) for x in outputs]}",
            code="wrong_program",
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
            dtype = types.builtin_to_string(variable.dtype)
            if dtype in ("fp16", "fp32") and dtype != wanted:
                raise InvalidArtifactError(
                    f"Core ML operator {operation.op_type} ({operation.name}) computes in {dtype}, not in {wanted}",
                    code="wrong_program",
                )
    return tuple(sorted((name, count) for name, count in operators.items() if count))


def _check_quantised(operation: Any) -> None:
    """Check that both the activation and the weight of an operator come from int8."""
    activation, weight = operation.x.op, operation.weight.op
    if activation is None or activation.op_type != "dequantize":
        raise InvalidArtifactError(
            f"Core ML operator {operation.name} takes an activation that is not int8", code="wrong_program"
        )
    if weight is None or not weight.op_type.startswith("constexpr_"):
        raise InvalidArtifactError(
            f"Core ML operator {operation.name} has a weight that is not int8", code="wrong_program"
        )


def _fix_identifiers(path: Path) -> None:
    """Replace the random identifiers of a package's manifest, so that equal models have equal bytes."""
    manifest_path = path / "Manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    renamed = {old: str(uuid.uuid5(_NAMESPACE, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {renamed[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    manifest_path.write_text(json.dumps(manifest, indent=2, sort_keys=True), encoding="utf-8")
