"""MetaFormer's blocks by their formulas, and the mixer as a choice of a space and of its supernet."""

import dataclasses
import json
import random

import pytest
import torch
import torch.nn.functional as F

from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.source import build_module, build_seeded
from search.blocks import check_chain, group_blocks, parse_key, parse_keys, peak_activation_bytes
from search.blocks.metaformer import MIXERS, MixerSetting
from search.networks import build_group, build_network
from search.spaces import Arch, get_space, register_space
from search.spaces.metaformer import CIFAR
from search.supernet.model.supernet import DropPath, Supernet, leaving_out
from search.supernet.recipe.samplers import largest, smallest
from tests.support.errors import raises
from tests.support.slow import mostly_slow

COARSE = dict(CIFAR.stages[0].labels)["mixer"]
SHELL, POOL, MLP = "metaformer.shell(c=8)@4", "mix.pool(c=8,k=3)@4", "metaformer.mlp(c=8,ratio=2)@4"
X = torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def built(*keys):
    return build_seeded(lambda: build_group(parse_keys(keys)), 0)


def mixed_by(*mixers, pick=max):
    """The largest or smallest network with these mixers in its two stages, or the first in both."""
    rows = tuple(
        tuple(COARSE.index(mixer) if name == "mixer" else pick(values) for name, values in stage.choices)
        for stage, mixer in zip(CIFAR.stages, (*mixers, *mixers), strict=False)
    )
    return Arch(CIFAR, 32, "bnfc", 10, rows)


@torch.no_grad()
def test_block_is_the_papers_equations():
    """Yu et al. 2022, equations 2 and 3, with LayerNorm over channels written out."""
    block, mlp = built(SHELL, POOL), built(MLP)

    def norm(x, layer):
        centred = x - x.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return normed * layer.weight[:, None, None] + layer.bias[:, None, None]

    normed = norm(X, block.norm)
    mixed = X + F.avg_pool2d(normed, 3, 1, 1, count_include_pad=False) - normed
    torch.testing.assert_close(block(X), mixed)
    hidden = torch.einsum("bchw,oc->bohw", norm(X, mlp.norm), mlp.expand.weight[:, :, 0, 0])
    hidden = F.gelu(hidden + mlp.expand.bias[:, None, None])
    projected = torch.einsum("bohw,co->bchw", hidden, mlp.project.weight[:, :, 0, 0])
    torch.testing.assert_close(mlp(X), X + projected + mlp.project.bias[:, None, None])


def test_costs_by_hand():
    shell, mlp = parse_key(SHELL), parse_key(MLP)
    assert (shell.params(), shell.macs().total) == (2 * 8, 0)
    assert mlp.params() == 2 * 8 + (8 * 16 + 16) + (16 * 8 + 8)
    assert mlp.macs().total == mlp.macs().conv_linear == 16 * 2 * 8 * 16
    mixer = parse_key(POOL)
    assert peak_activation_bytes([shell, mixer]) == 4 * (mixer.costs.live_elements + 8 * 16)


def test_every_removal_leaves_a_network():
    keys = ("conv(in=3,out=8,k=3,s=1)@4", SHELL, POOL, MLP, "head.fc(in=8,classes=10)@4")
    whole = parse_keys(keys)
    assert [len(group) for group in group_blocks(whole)] == [1, 2, 1, 1]
    for left_out in (1, 2, 3):
        blocks = whole[:left_out] + whole[left_out + 1 :]
        check_chain(blocks)
        assert build_network(blocks).eval()(torch.randn(1, 3, 4, 4)).shape == (1, 10)
    assert [len(group) for group in group_blocks(whole[:1] + whole[2:])] == [1, 1, 1, 1], (
        "runs without a shell"
    )


@torch.no_grad()
def test_stochastic_depth_drops_the_mixer_and_its_norm_together():
    module, group = built(SHELL, POOL), parse_keys((SHELL, POOL))
    (_, scales) = DropPath(0.5, "a").draw([parse_keys((MLP,)), group], 3)
    assert list(scales) == [(0, "layers")], "the mixer inside is not drawn a second time"
    whole = module(X)
    with leaving_out(module, {(0, "layers"): torch.tensor([0.0, 1.0, 2.0])}):
        out = module(X)
    assert torch.equal(out[0], X[0])
    torch.testing.assert_close(out[1], whole[1])
    torch.testing.assert_close(out[2], 2 * whole[2] - X[2])


def test_a_mixer_is_written_by_name():
    arch = mixed_by("mha")
    document = arch.to_document()
    assert [stage["mixer"] for stage in document["stages"].values()] == ["mha", "mha"]
    assert CIFAR.from_document(document) == arch
    document["stages"]["stage1"]["mixer"] = "mamba"
    with raises("invalid_architecture") as refused:
        CIFAR.from_document(document)
    assert str(refused.value) == f"stage1.mixer must be one of {', '.join(COARSE)}, not 'mamba'"


def test_heads_that_do_not_divide_are_refused():
    stage = dataclasses.replace(
        CIFAR.stages[0],
        fixed=tuple((name, 12 if name == "head_dim" else value) for name, value in CIFAR.stages[0].fixed),
    )
    with raises("invalid_block_parameter") as refused:
        register_space(dataclasses.replace(CIFAR, name="uneven", stages=(stage,), stage_counts=(1,)))
    assert str(refused.value) == (
        "heads of 12 channels do not divide 16 channels; change head_dim or the widths"
    )


@pytest.fixture(scope="module")
def supernet():
    return Supernet(CIFAR, seed=1)


@pytest.mark.parametrize("mixer", COARSE)
def test_largest_and_smallest_network_of_every_mixer_are_in_the_supernet(supernet, mixer):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for pick in (max, min):
        arch = mixed_by(mixer, pick=pick)
        assert sum(
            part.region(supernet.get_parameter(part.source)).numel() for part in supernet.slices(arch)
        ) == (arch.params())
        torch.testing.assert_close(supernet(x, arch), supernet.extract(arch).train()(x), rtol=1e-5, atol=1e-5)


def test_mixers_have_weights_of_their_own_and_share_the_rest(supernet):
    one, other = ({part.source for part in supernet.slices(mixed_by(mixer))} for mixer in ("mha", "linear"))
    assert all(".layers." in name or ".norm." in name for name in one ^ other)
    shared = {name.split(".")[1] for name in one & other}
    assert shared == {
        "stage1_embed", "stage1_0feed", "stage1_1feed", "head_bnfc",
        "stage2_embed", "stage2_0feed", "stage2_1feed",
    }  # fmt: skip


def test_largest_and_smallest_choose_the_mixer_by_its_parameters():
    """The kinds of a choice are in no order; of two networks that differ in mixers alone, parameters decide."""
    rng = random.Random(0)
    for space in (CIFAR, get_space("metaformer-xxs")):
        params = [space.sample(rng).params() for _ in range(300)]
        assert smallest(space).params() <= min(params) < max(params) <= largest(space).params()
        assert largest(space).params() < 2.4e6
    assert {row[-1] for row in smallest(CIFAR).stages} == {COARSE.index("pool")}


def test_several_resolutions_have_no_supernet_with_weights_for_one():
    space = dataclasses.replace(CIFAR, name="two", resolutions=(32, 64))
    with raises("not_elastic") as refused:
        Supernet(space)
    assert "has weights for one side of the map" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_shifted_windows_and_grids_take_turns_with_windows():
    for mixer in ("shifted", "grid"):
        kinds = [block.kind for block in mixed_by(mixer).blocks() if block.kind.startswith("mix.")]
        assert kinds == [f"mix.{mixer}", "mix.window"] * 2


@pytest.mark.parametrize("first", mostly_slow(range(0, len(COARSE), 2), kept=[0, 6]))
def test_network_of_every_two_mixers_is_one_delegate(first):
    names = COARSE[first], COARSE[(first + 1) % len(COARSE)]
    module, inputs = build_module(ExportSpec(mixed_by(*names, pick=min).keys()))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())


def test_json_reads_back():
    for name in ("metaformer-cifar", "metaformer-xxs"):
        space = get_space(name)
        arch = space.sample(random.Random(5))
        assert space.from_document(json.loads(arch.to_json())) == arch


@pytest.mark.parametrize("mixer", mostly_slow(["axial", "shunted", "linformer", "focal"], kept=["axial"]))
def test_mixers_of_larger_spaces_alone_are_one_delegate(mixer):
    block = MIXERS[mixer](MixerSetting(8, 32, 2, 4))
    module, inputs = build_module(ExportSpec((block.key,)))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
