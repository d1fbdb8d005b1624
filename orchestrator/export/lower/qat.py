"""A network with fake quantisation, to be fine-tuned for int8 (PT2E QAT of torchao, ExecuTorch's XNNPACKQuantizer).

The graph keeps the network's own parameters and BN statistics under their names, so that what was trained goes back
into the network as ordinary weights; ranges of activations are then taken by calibration like any other's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from luts.format.errors import BlocktimeError, first_line
from orchestrator.export.lower.quiet import quiet


def with_fake_quantization(network: nn.Module, images: Tensor) -> nn.Module:
    """A graph in training mode for batches like `images` (B, 3, H, W) that rounds as int8 does: weights one scale a
    channel, activations one a tensor, LayerNorm, softmax and attention's products left in fp32.

    Raises:
        BlocktimeError: the network can't be captured in training mode.
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
                f"this network can't be fine-tuned for int8, its training can't be captured: {first_line(error)}"
            ) from error
    return prepared


def weights_of(prepared: nn.Module, network: nn.Module) -> Mapping[str, Tensor]:
    """The network's tensors by name, as they were trained in the graph.

    Raises:
        BlocktimeError: the graph has lost one of them.
    """
    trained = prepared.state_dict()
    if lost := sorted(set(network.state_dict()) - set(trained)):
        raise BlocktimeError(f"fine-tuning for int8 loses {lost[0]}; fine-tune without --qat and calibrate")
    return {name: trained[name].detach().clone().contiguous() for name in network.state_dict()}
