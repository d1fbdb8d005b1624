"""Networks of others are captured with operations that XNNPACK takes, and compute what they computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.rewrite import SpelledOut, spelled_out

X = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
CASES = {
    "matmul": lambda x: x @ x.transpose(-2, -1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "mask": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x[:1, :1, :, :6], scale=0.3),
    "causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "broadcast": lambda x: x @ x[0, 0].T,
    "unbind": lambda x: torch.stack(x.unbind(1)),
    "split": lambda x: torch.cat([2 * part for part in x.split([1, 5], dim=2)], 2),
    "split evenly": lambda x: torch.cat(x.split(4, dim=-1)[::-1], -1),
    "chunk": lambda x: torch.cat(torch.chunk(x, 3, dim=2)[::-1], 2),
    "negative index": lambda x: x[:, -1],
    "index and slice": lambda x: x[1:, 0, ::2],
    "all indices": lambda x: x * x[0, 1, 2, 3],
    "a new dimension": lambda x: x[:, None, 0],
    "mean": lambda x: x.mean(dim=(-1, -2)),
    "mean, kept": lambda x: x.mean((3, 2), keepdim=True),
    "mean of one": lambda x: x.mean(1),
    "expand": lambda x: x.expand(-1, 3, 6, 8) + x[:1].expand(2, -1, -1, -1),
    "hardsigmoid": lambda x: F.hardsigmoid(4 * x),
}


@pytest.mark.parametrize("name", CASES)
def test_each_spelling_computes_what_torch_does(name):
    with SpelledOut():
        spelled = CASES[name](X)
    torch.testing.assert_close(spelled, CASES[name](X))


class Attention(nn.Module):
    """As timm writes it."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, x):
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1)
        q, k, v = self.qkv(x).reshape(1, -1, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, -1, 16)
        return self.proj(y)[:, 0]


class AttentionOnMaps(nn.Module):
    """Softmax along the last dimension between two convolutions, as MobileViTv2 has it."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(4, 9, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        q, _, v = self.qkv(x).split([1, 4, 4], dim=1)
        return self.proj(F.softmax(q, -1) * v)


def test_softmax_after_a_convolution_is_along_the_dimension_that_was_meant():
    module = AttentionOnMaps().eval()
    inputs = (torch.randn(1, 4, 4, 16, generator=torch.Generator().manual_seed(0)),)
    program = lower_to_executorch(module, inputs)
    assert (program.delegates, program.operators) == (1, ())
    check_parity(run_pte(program.data, inputs), module, inputs, tolerance=1e-5)


def test_attention_as_timm_writes_it_is_one_delegate():
    module = Attention().eval()
    x = torch.randn(1, 9, 16)
    torch.testing.assert_close(spelled_out(module)(x), module(x))
    program = lower_to_executorch(module, (x,))
    assert (program.delegates, program.operators) == (1, ())
