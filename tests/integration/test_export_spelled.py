"""Networks of others are captured with operations that XNNPACK takes, and compute what they computed."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1, LayerNorm2d
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from orchestrator.export.lower.decompositions import DECOMPOSITIONS
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.operators import graph_nodes
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.rewrite import capture, linear_layernorm
from orchestrator.export.lower.xnnpack import recorded_graphs
from tests.support.slow import mostly_slow

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
    "slice of all that an ellipsis leaves": lambda x: x[:, :3, ...] * x[..., 2, None, :],
    "slice of everything": lambda x: x[:, :3, :6] * x[:],
    "slice, index and new dimension": lambda x: x[1:, None, 2, :6, None],
    "a new dimension of all": lambda x: x.unsqueeze(1).squeeze(1) * x.unsqueeze(-4).squeeze(),
    "mean of three": lambda x: x.mean((0, 2, 3)),
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "mean of all": lambda x: x.mean(),
    "mean in fp64": lambda x: x.mean(1, dtype=torch.float64),
    "sum of pixels": lambda x: x.sum((2, 3)),
    "sum of a few": lambda x: x.sum(0),
    "sum of the last": lambda x: x.sum(-1, keepdim=True),
    "sum of two apart": lambda x: x.sum(dim=(1, 3)),
    "sum along an axis": lambda x: x.sum(axis=2),
    "sum of whole numbers": lambda x: (10 * x).long().sum(1),
    "sum of one row": lambda x: x[:, :1].sum(1),
    "norm": lambda x: x.norm(p=2, dim=(2, 3), keepdim=True),
    "norm of one": lambda x: x.norm(p=1, dim=1),
    "normalize": lambda x: F.normalize(x, dim=1) + F.normalize(x, p=2, dim=-1, eps=2.0),
    "normalize by p = 1": lambda x: F.normalize(x, p=1, dim=1),
    "softmax of channels": lambda x: x.softmax(1) + torch.softmax(x, dim=-2),
    "softmax in fp64": lambda x: F.softmax(x, 1, dtype=torch.float64),
    "powers": lambda x: (x**2.0 + 1).pow(-0.5) + (x * x) ** 0.5,
    "cube": lambda x: x**3.0 + x**2,
    "addcmul": lambda x: torch.addcmul(x, x, x) + torch.addcmul(x, x, x, value=2),
    "pool with zeros": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "pool rounded up": lambda x: F.avg_pool2d(x, (4, 3), (4, 3), 0, ceil_mode=True, count_include_pad=False),
    "pool, padded and rounded up": lambda x: F.avg_pool2d(x, 3, 2, (1, 0), ceil_mode=True),
    "pool without zeros": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "pool by another divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "roll": lambda x: torch.roll(x, (2, -3), (2, 3)),
    "roll of all": lambda x: x.roll(5),
    "bicubic": lambda x: F.interpolate(x, size=(9, 5), mode="bicubic", align_corners=False),
    "bicubic, corners aligned": lambda x: F.interpolate(x, (3, 11), mode="bicubic", align_corners=True),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "expand as": lambda x: x[:1].expand_as(x) * x,
    "windows": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "windows of uneven sides": lambda x: F.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)),
    "sums of windows": lambda x: F.fold(x.reshape(2, 18, 8), (3, 7), (3, 2), padding=(0, 1), stride=(1, 1)),
    "sums of windows that reach not all": lambda x: F.fold(x.reshape(2, 12, 12), (7, 9), 2, 1, 0, 2),
    "maximum of a few": lambda x: x.amax(1) + torch.amax(x, 1, keepdim=True)[:, 0] + x.amax(dim=-3),
    "maximum of the last and of two": lambda x: x.amax(-1) + x.amax((0, 1), keepdim=True)[0, 0, :, 0],
    "maximum of many": lambda x: x.repeat(1, 4, 1, 1).amax(1),
    "maximum and where it is": lambda x: x.max(2)[0] + x.max(2)[1] + x.max(1, keepdim=True)[0][:, 0, :1],
}


class Function(nn.Module):
    """A function of a tensor."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize("name", CASES)
def test_each_decomposition_computes_what_torch_does(name):
    exported = torch.export.export(Function(CASES[name]), (X,)).run_decompositions(dict(DECOMPOSITIONS))
    torch.testing.assert_close(exported.module()(X), CASES[name](X))


class BetweenConvolutions(nn.Module):
    """A function or module of maps with 8 channels."""

    def __init__(self, function):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.function = function

    def forward(self, x):
        return self.after(self.function(self.before(x)))


def _with_weights(module):
    for weight in module.parameters():
        nn.init.normal_(weight)
    return module


ONE_DELEGATE = {
    "slice of everything before an ellipsis": lambda x: x[:, 0:8, ...] + x[..., 1:2],
    "slice of everything": lambda x: x[:, :8] + 1.0,
    "powers": lambda x: (x**2.0 + 1.0).pow(-0.5) + (x * x) ** 0.5,
    "GroupNorm of one group": _with_weights(GroupNorm1(8)),
    "torch's GroupNorm of one group": _with_weights(nn.GroupNorm(1, 8)),
    "LayerNorm of maps": _with_weights(LayerNorm2d(8)),
    "response norm": _with_weights(GlobalResponseNorm(8, channels_last=False)),
    "softmax of channels": lambda x: x.softmax(1),
    "sums": lambda x: x * x.sum(1, keepdim=True) + x.sum((2, 3), keepdim=True) + x.mean(-1, keepdim=True),
    "selective kernels": lambda x: (torch.stack((x, 2.0 * x), 1).softmax(1) * x[:, None]).sum(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "expand as": lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
    "pools": lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x[:, :, 1:, 1:], 2, 2, ceil_mode=True),
    "bicubic": lambda x: F.interpolate(x, size=(7, 9), mode="bicubic", align_corners=False),
    "roll": lambda x: torch.roll(x, (2, -3), (2, 3)),
    "windows and their sums": lambda x: F.fold(2.0 * F.unfold(x, 3, 1, 1, 2), (10, 12), 3, 1, 1, 2),
    "maximum of a few": lambda x: x * torch.stack((x, 2.0 - x, -x), 2).amax(2),
    "maximum of channels, alone": lambda x: x * x.max(1)[0][:, None],
    "what depends on no input": lambda x: x + torch.arange(8.0).cumsum(0).reshape(1, 8, 1, 1).sin(),
    "what depends on no input, in place": lambda x: x + torch.arange(8.0).sin().mul_(2.0).reshape(1, 8, 1, 1),
}


IN_EVERY_RUN = (
    "powers", "GroupNorm of one group", "LayerNorm of maps", "softmax of channels", "sums", "pools",
    "windows and their sums", "maximum of channels, alone",
)  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(ONE_DELEGATE, IN_EVERY_RUN))
def test_each_rewrite_stays_in_one_delegate_with_the_same_outputs(name):
    torch.manual_seed(0)
    module = BetweenConvolutions(ONE_DELEGATE[name]).eval()
    inputs = (torch.randn(1, 3, 10, 12),)
    program = lower_to_executorch(module, inputs)
    assert (program.delegates, program.operators) == (1, ())
    check_parity(run_pte(program.data, inputs), module, inputs, tolerance=5e-6)


UNLIKE = {
    "GroupNorm of two groups": nn.GroupNorm(2, 8),
    "GroupNorm without weights": nn.GroupNorm(1, 8, affine=False),
    "LayerNorm of maps without weights": LayerNorm2d(8, affine=False),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_norms_that_only_look_alike_stay(name):
    assert linear_layernorm(UNLIKE[name]).__class__ is UNLIKE[name].__class__


NATIVE = {
    "pool without zeros": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "softmax of the last": lambda x: x.softmax(-1),
    "mean of the map": lambda x: x.mean((2, 3), keepdim=True),
    "square": lambda x: x**2,
    "bilinear": lambda x: F.interpolate(x, size=(7, 9), mode="bilinear"),
}


@pytest.mark.parametrize("name", NATIVE)
def test_what_xnnpack_has_stays(name):
    module = BetweenConvolutions(NATIVE[name])
    spelled, plain = (
        [(node.target, str(node.args)) for node in program.graph.nodes if node.op == "call_function"]
        for program in (capture(module, (X,)), torch.export.export(module, (X,)))
    )
    assert spelled == plain


def test_group_norm_of_tokens_is_torchs():
    norm, x = _with_weights(nn.GroupNorm(1, 8)), torch.randn(2, 8, 5)
    torch.testing.assert_close(linear_layernorm(norm)(x), norm(x))


class Expanded(nn.Module):
    """An expanded tensor that an addition reads, and one whose size only the expansion decides."""

    def forward(self, x):
        row = x[:, :, :1].expand(-1, -1, 6, -1)
        return x + row, row


def test_an_expansion_that_decides_the_size_stays():
    module = Expanded()
    graph = capture(module, (X,)).graph
    assert len(graph.find_nodes(op="call_function", target=torch.ops.aten.expand.default)) == 1
    assert all(map(torch.equal, capture(module, (X,)).module()(X), module(X)))


def test_int8_keeps_sums_in_fp32():
    module = BetweenConvolutions(lambda x: x + x.sum(1, keepdim=True)).eval()
    inputs = (torch.randn(1, 3, 10, 12),)
    with recorded_graphs() as graphs:
        program = lower_to_executorch(module, inputs, precision="int8")
    assert program.delegates == 1
    convolved = [
        read[1].datatype.name
        for node, read, _ in graph_nodes(graphs[0].graph)
        if type(node).__name__ == "XNNConv2d"
    ]
    assert sorted(convolved) == ["xnn_datatype_fp32", "xnn_datatype_qcint8", "xnn_datatype_qcint8"]


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
    torch.testing.assert_close(capture(module, (x,)).module()(x), module(x))
    program = lower_to_executorch(module, (x,))
    assert (program.delegates, program.operators) == (1, ())
