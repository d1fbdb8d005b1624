"""Quantise a Core ML package to int8 weights and activations (W8A8), without a Mac.

The passes are those of `coremltools.optimize.coreml`. Its `linear_quantize_activations` calibrates by running
Core ML; here the ranges come from evaluating the same program in PyTorch, on images where they are given. Their
sizes decide the scales but not the latency, so seeded random inputs are what measuring needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from orchestrator.export.lower.calibration import calibration_inputs
from orchestrator.export.lower.mil import evaluate

if TYPE_CHECKING:
    from orchestrator.export.lower.ranges import ExtremesObserver, MiddleObserver

QUANTISED_OPERATORS = ("conv", "linear")
"""Whose weights become int8. Biases, norms and attention's products stay in fp16; coremltools leaves them alone."""


def quantize_w8a8(model: Any, inputs: Sequence[Tensor], images: Tensor | None = None) -> Any:
    """The fp16 model with symmetric int8 activations (a tensor a scale) and weights (a channel a scale).

    Args:
        model: A converted `MLModel` for iOS17 or later, with its MIL program.
        inputs: Example inputs; without images, calibration draws more of the same shapes and spread.
        images: (N, 3, H, W) to calibrate on.

    Raises:
        UnknownOperatorError: the program can't be evaluated, hence not calibrated.
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
    # One conversion for all passes; coremltools' own functions convert anew for weights, a third of the time.
    return utils._apply_graph_pass(model, passes, spec_version=coremltools.target.iOS17, skip_model_load=True)


def _ranges(function: Any, inputs: Sequence[Tensor], images: Tensor | None) -> dict[str, dict[str, float]]:
    """Ends of the range of every activation, as coremltools names them."""
    from orchestrator.export.lower.ranges import observer_for  # brings torchao

    observers: defaultdict[str, MiddleObserver | ExtremesObserver] = defaultdict(observer_for(images))
    for sample in calibration_inputs(inputs, images):
        evaluate(function, sample, lambda name, value: observers[name](value))
    ends = {name: observer.ends() for name, observer in observers.items()}
    return {name: {"rmin": float(low), "rmax": float(high)} for name, (low, high) in ends.items()}
