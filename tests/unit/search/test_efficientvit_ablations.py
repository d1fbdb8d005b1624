"""EfficientViT with a choice of table 6 undone: what changes, what does not, and how each is lowered."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.rewrite import rewritten
from orchestrator.export.lower.source import build_module
from orchestrator.export.lower.weights import build_seeded
from search.blocks import parse_key, parse_keys
from search.networks import build_block, build_network
from search.networks.layers import ChannelNorm
from search.spaces import get_arch, get_space, list_published
from search.spaces.layout import Stage
from search.spaces.undone import UNDONE, undo
from search.supernet.model.supernet import Supernet
from tests.support.soak import rest_soaks

SMALL = (
    "evit.stem(in=3,out=16)@64",
    "evit.ffn(c=16,ratio=2)@4",
    "evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@4",
    "evit.merge(in=16,out=24)@4",
    "head.bnfc(in=24,classes=10)@2",
)
"""Every kind of block of the network."""


def _networks(change):
    """The small network and the one with a choice undone, with the same weights where both have them."""
    plain = build_seeded(lambda: build_network(parse_keys(SMALL)), 0)
    undone = build_seeded(lambda: build_network(undo(parse_keys(SMALL), change)), 0)
    kept = {n: t for n, t in plain.state_dict().items() if n in undone.state_dict()}
    undone.load_state_dict(kept, strict=False)
    return plain, undone


def test_what_each_undoes_of_the_papers_m4():
    """8,804,228 parameters are timm's; by hand: 16 channels x 4 heads x (49 + 25 + 9 + 9 + 2 each) are those of one
    attention's query convolutions, 11 a channel those of a depthwise 3x3 and its BN."""
    plain = get_arch("efficientvit-m4")
    networks = list_published()
    sizes = {change: networks[f"efficientvit-m4-{change}"].params() for change in UNDONE[1:]}
    queries = 6 * 16 * (49 + 25 + 9 + 9 + 4 * 2)
    interactions = 11 * (128 * (2 + 1) + 256 * (1 + 4 + 1) + 384 * (1 + 6))
    assert sizes == {
        "no-cascade": plain.params(),
        "layernorm": plain.params(),
        "hardswish": plain.params(),
        "no-query-conv": plain.params() - queries,
        "no-interaction": plain.params() - interactions,
    }
    for name in sizes:
        theirs = networks[f"efficientvit-m4-{name}"].keys()
        assert len(theirs) == len(plain.keys())
        assert theirs != plain.keys()


def test_hardswish_stands_where_relu_stood():
    plain, undone = _networks("hardswish")
    swapped = {n: m for n, m in undone.named_modules() if isinstance(m, nn.Hardswish)}
    assert swapped.keys() == {n for n, m in plain.named_modules() if isinstance(m, nn.ReLU)}
    assert len(swapped) == 3 + 1 + 1 + 1


def test_layernorm_is_over_the_channels_of_a_pixel():
    _, undone = _networks("layernorm")
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in undone.modules())
    norm = ChannelNorm(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4)
    pixel = F.layer_norm(x[1, :, 2, 3], (5,), norm.weight, norm.bias)
    torch.testing.assert_close(norm(x)[1, :, 2, 3], pixel)
    torch.testing.assert_close(rewritten(nn.Sequential(norm), "xnnpack")(x), norm(x), rtol=1e-4, atol=1e-5)


def test_without_the_cascade_a_head_is_blind_to_the_heads_before_it():
    spec = parse_key("evit.group(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@4")
    module = build_seeded(lambda: build_block(spec)[0], 0)
    cascaded = build_seeded(lambda: build_block(parse_key(spec.key.replace("group", "cga")))[0], 0)
    cascaded.load_state_dict(module.state_dict())
    seen = {}
    for name, block in (("group", module), ("cga", cascaded)):
        block.heads[1].register_forward_hook(lambda _m, given, _out, name=name: seen.update({name: given[0]}))
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        module(x)
        first = cascaded.heads[0](x[:, :8])
        cascaded(x)
    assert torch.equal(seen["group"], x[:, 8:])
    torch.testing.assert_close(seen["cga"], x[:, 8:] + first)


def test_queries_without_convolution_are_the_projection_alone():
    spec = parse_key("evit.cga.plainq(c=16,heads=2,qk=4,v=8,window=7)@4")
    assert not any(
        m.kernel_size != (1, 1) for m in build_block(spec)[0].modules() if isinstance(m, nn.Conv2d)
    )


def test_without_interaction_a_pixel_is_blind_to_its_neighbours():
    module = build_seeded(lambda: build_block(parse_key("evit.feed(c=8,ratio=2)@4"))[0], 0)
    x = torch.randn(1, 8, 4, 4)
    moved = x.clone()
    moved[..., 0, 0] += 1
    with torch.no_grad():
        differs = (module(moved) != module(x)).any(1)[0]
    assert differs.nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize("change", rest_soaks(UNDONE[1:], ["layernorm"]))
def test_each_is_one_delegate_and_computes_what_pytorch_computes(change):
    keys = tuple(block.key for block in undo(parse_keys(SMALL), change))
    module, inputs = build_module(ExportSpec(keys))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-4)


def test_a_space_may_choose_what_is_undone():
    nano = get_space("efficientvit-nano")
    stages = tuple(
        Stage(s.name, s.kind, s.fixed, (*s.choices, ("undone", tuple(range(len(UNDONE))))))
        for s in nano.stages
    )
    space = dataclasses.replace(nano, name="nano-undone", stages=stages, heads=("bnfc", "lnfc"))
    kinds = {block.kind for block in space.block_specs()}
    assert {
        "evit.group",
        "evit.cga.ln",
        "evit.ffn.hswish",
        "evit.cga.plainq",
        "evit.feed",
        "evit.cga",
    } <= kinds
    with pytest.raises(UsageError, match="has no supernet: .* is not elastic"):
        Supernet(space)


def test_an_unknown_choice_is_told_the_known_ones():
    with pytest.raises(
        UsageError, match=r"no choice 'gelu' to undo; it has no-cascade, layernorm, hardswish"
    ):
        undo((), "gelu")
