"""Evaluate an ML program (MIL) in PyTorch, where Core ML itself is not: on Linux.

It tells what a converted program computes, for parity with PyTorch, and the ranges of its activations, for
quantisation. Arithmetic is in fp32 whatever type the program names, weights are as stored, so a result shows
the rounding of weights and of quantised activations and not that of fp16 sums.
Operators: those that the networks here convert to, and the commonest of timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luts.format.errors import BlocktimeError

Inputs = Mapping[str, Any]
Observer = Callable[[str, Tensor], None]
"""Called with the name and the value of every activation, the program's inputs included."""


class UnknownOperatorError(BlocktimeError):
    """The program has an operator, or a mode of one, that this evaluation does not know."""


def evaluate(
    function: Any,
    inputs: Sequence[Tensor],
    observe: Observer | None = None,
    constants: dict[str, Any] | None = None,
) -> list[Tensor]:
    """Outputs of a MIL function (`program.functions["main"]`) for its inputs in order.

    Constants that were unpacked are kept in `constants`, for further inputs of the same function.

    Raises:
        UnknownOperatorError: names the operator.
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
        for operation in function.operations:
            if operation.op_type == "const" or operation.op_type.startswith("constexpr_"):
                continue
            given = {name: value_of(variable) for name, variable in operation.inputs.items()}
            results = _run(operation, given)
            for variable, value in zip(operation.outputs, results, strict=True):
                keep(variable.name, value)
        return [value_of(variable) for variable in function.outputs]


def _constant(variable: Any) -> Any:
    """A constant as PyTorch takes it: floating-point arrays as fp32 tensors, everything else as it is."""
    if variable.op is not None and variable.op.op_type.startswith("constexpr_"):
        return torch.from_numpy(np.array(variable.op.materialized_val_inference(), dtype=np.float32))
    value = variable.val
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float32))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _run(operation: Any, given: Inputs) -> Sequence[Any]:
    operator = _OPERATORS.get(operation.op_type)
    if operator is None:
        raise UnknownOperatorError(f"no evaluation of the Core ML operator {operation.op_type}")
    result = operator(given)
    return result if isinstance(result, tuple) else (result,)


def _conv(given: Inputs) -> Tensor:
    x, kind = given["x"], given["pad_type"]
    if x.ndim != 4 or kind not in ("valid", "custom"):
        raise UnknownOperatorError(f"no evaluation of a Core ML convolution of rank {x.ndim}, padding {kind}")
    if kind == "custom":
        top, bottom, left, right = given["pad"]
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(
        x,
        given["weight"],
        given.get("bias"),
        stride=given["strides"],
        dilation=given["dilations"],
        groups=given["groups"],
    )


def _stretch(given: Inputs) -> Tensor:
    """Bilinear, with pixels as areas: half pixel centres are the default where corners are not aligned."""
    if given["align_corners"] or not given.get("half_pixel_centers", True):
        raise UnknownOperatorError("no evaluation of a Core ML upsampling that does not take pixels as areas")
    x, scales = given["x"], (given["scale_factor_height"], given["scale_factor_width"])
    size = [round(side * float(scale)) for side, scale in zip(x.shape[2:], scales, strict=True)]
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _pad(given: Inputs) -> Tensor:
    if given["mode"] != "constant":
        raise UnknownOperatorError(f"no evaluation of Core ML's pad in mode {given['mode']}")
    pairs = np.reshape(given["pad"], (-1, 2)).tolist()
    return F.pad(given["x"], [side for pair in reversed(pairs) for side in pair], value=given["constant_val"])


def _slice(given: Inputs) -> Tensor:
    x: Tensor = given["x"]
    rank = x.ndim
    none = [False] * rank
    begin_mask, end_mask = given.get("begin_mask") or none, given.get("end_mask") or none
    squeeze = given.get("squeeze_mask") or none
    steps = given.get("stride") or [1] * rank
    if any(squeeze) or any(step < 1 for step in steps):
        raise UnknownOperatorError("no evaluation of a Core ML slice that drops or reverses a dimension")
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
    "batch_norm": lambda g: F.batch_norm(
        g["x"], g["mean"], g["variance"], g.get("gamma"), g.get("beta"), eps=float(g["epsilon"])
    ),
    "cast": lambda g: g["x"],
    "clip": lambda g: g["x"].clamp(g["alpha"], g["beta"]),
    "concat": lambda g: torch.cat(g["values"], g["axis"]),
    "conv": _conv,
    "dequantize": _dequantize,
    "layer_norm": _layer_norm,
    "linear": lambda g: F.linear(g["x"], g["weight"], g.get("bias")),
    "matmul": _matmul,
    "mul": lambda g: g["x"] * g["y"],
    "pad": _pad,
    "quantize": _quantize,
    "reduce_mean": lambda g: g["x"].mean(tuple(g["axes"]), keepdim=g["keep_dims"]),
    "relu": lambda g: F.relu(g["x"]),
    "reshape": lambda g: g["x"].reshape(g["shape"]),
    "sigmoid": lambda g: torch.sigmoid(g["x"]),
    "silu": lambda g: F.silu(g["x"]),
    "slice_by_index": _slice,
    "softmax": lambda g: F.softmax(g["x"], g["axis"]),
    "split": lambda g: torch.split(g["x"], g["split_sizes"], g["axis"]),
    "squeeze": lambda g: g["x"].squeeze(tuple(g["axes"])),
    "sub": lambda g: g["x"] - g["y"],
    "transpose": lambda g: g["x"].permute(g["perm"]),
    "upsample_bilinear": _stretch,
}
