"""ExecuTorch's passes and patterns that are left out because they change nothing: programs keep their bytes."""

import pytest
import torch
from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch import Tensor, nn
from torch.nn import functional
from torchao.quantization.pt2e import qat_utils, quantize_pt2e

from orchestrator.export.lower import quantize
from orchestrator.export.lower.executorch import lower_to_executorch
from tests.support.slow import mostly_slow


class Around(nn.Module):
    """A convolution, and an operation on its map that one of the passes is for."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.prelu, self.operation = nn.BatchNorm2d(8), nn.PReLU(8), operation

    def forward(self, image: Tensor) -> Tensor:
        x = self.convolution(image)
        tokens = x.flatten(2).transpose(1, 2)
        result: Tensor = {
            "nothing": lambda: x,
            "resize": lambda: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
            "attention": lambda: functional.scaled_dot_product_attention(
                tokens, tokens, tokens, torch.zeros(36, 36)
            ),
            "norm": lambda: self.norm(x + x.sigmoid()),
            "concatenation": lambda: torch.cat([x + number for number in range(7)], 1),
            "pool": lambda: functional.max_pool2d(x, 2),
            "maximum": lambda: x.max(1)[0],
            "padding": lambda: functional.pad(x, (1, 1, 1, 1)) * 2,
            "prelu": lambda: self.prelu(x),
        }[self.operation]()
        return result


CASES = [
    (operation, precision)
    for precision in ("fp32", "int8")
    for operation in (
        "nothing", "resize", "attention", "norm", "concatenation", "pool", "maximum", "padding", "prelu",
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "precision"), mostly_slow(CASES, kept=[("nothing", "fp32"), ("norm", "fp32")])
)
def test_a_program_has_the_bytes_that_all_passes_and_patterns_give(
    operation: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module, inputs = Around(operation).eval(), (torch.randn(1, 3, 6, 6),)
    quick = lower_to_executorch(module, inputs, precision=precision).data
    monkeypatch.setattr(xnnpack_preprocess, "XNNPACKPassManager", XNNPACKPassManager)
    monkeypatch.setattr(quantize, "FoldedQuantizer", XNNPACKQuantizer)
    monkeypatch.setattr(quantize_pt2e, "_fold_conv_bn_qat", qat_utils._fold_conv_bn_qat)
    assert lower_to_executorch(module, inputs, precision=precision).data == quick
