"""Quantise a captured program to int8 weights and activations (PT2E, static) for the XNNPACK delegate; QAT.

Convolutions, linear layers, additions, products and concatenations become int8: weights symmetric with one
scale per channel, activations affine with one scale per tensor. Operations that XNNPACK only has in fp32 stay
so inside the same delegate: sigmoid (SiLU), softmax and attention's matrix products. Comparisons of tokens stay
fp32 too, and LayerNorm, GroupNorm and sums: as linear layers of one output (`rewrite.LinearLayerNorm`) means and
variances would be rounded to 8 bits of the largest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, quantize_pt2e
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationConfig

from luts.format.errors import BlocktimeError, first_line
from orchestrator.export.lower import quiet
from orchestrator.export.lower.calibration import calibration_inputs
from orchestrator.export.lower.decompositions import aten
from orchestrator.export.lower.rewrite import LinearLayerNorm, MapGroupNorm, PointwiseChannelNorm
from search.networks.vit import Comparison

MIDDLE = 0.999
"""Fraction of an activation's values over the calibration images that its range contains, with as many cut
off below as above.

Extremes of many images are those of a few pixels, for which all others would be rounded coarsely. Percentiles
as in Wu et al. 2020, "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602), section 5.
"""


class MiddleObserver(HistogramObserver):  # type: ignore[misc]  # torchao is untyped
    """Range of the middle of the values; uses torchao's histogram, not its search for the smallest error."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return both ends of the range, 0-dimensional, to within 1/2048 of the extremes' distance."""
        below = torch.cumsum(self.histogram, 0) / self.histogram.sum()
        tail = (1 - MIDDLE) / 2
        first, last = int((below <= tail).sum()), int((below < 1 - tail).sum())
        width = (self.max_val - self.min_val) / self.bins
        return self.min_val + first * width, self.min_val + (last + 1) * width

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, (1,) each."""
        scale, zero_point = self._calculate_qparams(*self.ends())
        return scale, zero_point


class ExtremesObserver(MinMaxObserver):  # type: ignore[misc]
    """Range of all values."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value, 0-dimensional."""
        return self.min_val, self.max_val


def observer_for(images: Tensor | None) -> type[MiddleObserver] | type[ExtremesObserver]:
    """Return the observer for ranges over images, or over random inputs without images.

    Ranges of random inputs do not affect latency, and extremes cost no time.
    """
    return ExtremesObserver if images is None else MiddleObserver


class FoldedQuantizer(XNNPACKQuantizer):  # type: ignore[misc]
    """Without the patterns of a convolution and BN, which are folded here: building these takes seconds."""

    SUPPORTED_PATTERNS = [each for each in XNNPACKQuantizer.SUPPORTED_PATTERNS if "_bn" not in each.name]  # noqa: RUF012


_shares_scale = xnnpack_quantizer_utils._is_share_obs_or_fq_op
_SHARE_TOO = {
    aten.pad.default, aten.constant_pad_nd.default, aten.contiguous.default, aten.clone.default,
    aten._unsafe_view.default,
}  # fmt: skip
xnnpack_quantizer_utils._is_share_obs_or_fq_op = lambda operator: (
    operator in _SHARE_TOO or _shares_scale(operator)
)
"""Operators whose output has the scale of their input: XNNPACK refuses programs in which it has another."""

quantize_pt2e._fold_conv_bn_qat = lambda model: model  # half a minute of patterns, where other BN is left

SMALLEST_SCALE = 2.0**-12
"""The quantizer's own limit: a tensor that is constant in calibration still has a scale XNNPACK accepts."""


def quantized(
    captured: ExportedProgram,
    inputs: Sequence[Tensor],
    images: Tensor | None = None,
    fp32: Sequence[str] = (),
) -> nn.Module:
    """Return the program in int8 as PyTorch runs it, with fp32 inputs and outputs.

    The quantizer accepts no configuration of None for a module's name, so modules that stay fp32 are filtered
    out: norms, comparisons, and those of the paths `fp32`. The program is one in inference mode, BN folded,
    LayerNorm rewritten; see `calibration_inputs` for inputs and images.
    """
    quantizer = FoldedQuantizer().set_global(_config(images)).set_filter_function(_outside(fp32))
    prepared = prepare_pt2e(captured.module(), quantizer)
    for sample in calibration_inputs(inputs, images):
        prepared(*sample)
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def _config(images: Tensor | None) -> QuantizationConfig:
    """Return the quantizer's per-channel config with the ranges of this module."""
    config = get_symmetric_quantization_config(is_per_channel=True)
    observer = observer_for(images).with_args(eps=SMALLEST_SCALE)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    return replace(config, input_activation=activation, output_activation=activation)


_FP32 = (LinearLayerNorm, PointwiseChannelNorm, MapGroupNorm, Comparison)


def _outside(fp32: Sequence[str]) -> Callable[[fx.Node], bool]:
    """Return whether an operation is not in a norm, a comparison or one of these modules, and is not a sum.

    Sums are products with constants of the rewrites, where other layers have parameters.
    """
    kinds = {*_FP32, *(f"{kind.__module__}.{kind.__qualname__}" for kind in _FP32)}
    excluded = tuple(f"{path}." for path in fp32)

    def outside(node: fx.Node) -> bool:
        modules = node.meta.get("nn_module_stack", {}).values()
        inside = any(kind in kinds or f"{path}.".startswith(excluded) for path, kind in modules)
        return not inside and not any("lifted_tensor" in str(x.target) for x in node.all_input_nodes)

    return outside


def with_fake_quantization(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a graph in training mode for batches like `images` (B, 3, H, W) that rounds as int8 does.

    Weights have one scale per channel, activations one per tensor; LayerNorm, softmax and attention's
    products stay fp32. The graph keeps the network's parameters and BN statistics under their names, so that
    trained weights go back into the network; ranges of activations are then calibrated like any other's.

    Raises:
        BlocktimeError: The network can't be captured in training mode.
    """
    with quiet():
        try:
            captured = torch.export.export(network.train(), (images,)).module()
            quantizer = XNNPACKQuantizer().set_global(
                get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
            )
            prepared: nn.Module = prepare_qat_pt2e(captured, quantizer)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, KeyError, AssertionError) as error:
            raise BlocktimeError(
                f"this network can't be fine-tuned for int8, its training can't be captured: {first_line(error)}",
                code="qat_failed",
            ) from error
    return prepared


def weights_of(prepared: nn.Module, network: nn.Module) -> Mapping[str, Tensor]:
    """Return the network's tensors by name, as they were trained in the graph.

    Raises:
        BlocktimeError: The graph has lost one of them.
    """
    trained = prepared.state_dict()
    if lost := sorted(set(network.state_dict()) - set(trained)):
        raise BlocktimeError(
            f"fine-tuning for int8 loses {lost[0]}; fine-tune without --qat and calibrate", code="qat_failed"
        )
    return {name: trained[name].detach().clone().contiguous() for name in network.state_dict()}
