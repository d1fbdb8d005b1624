"""`vit-cifar`: choices between kinds, one supernet at several resolutions, and corners of its slots."""

import itertools

import pytest
import torch

from search.spaces import get_space
from search.spaces.positions import ATTENTIONS, EMBEDDINGS, POSITIONS
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

SPACE = get_space("vit-cifar")
DOCUMENT = {
    "space": "vit-cifar",
    "resolution": 32,
    "head": "bnfc",
    "classes": 10,
    "stages": {
        "embed": {"width": 48, "embed": "patch", "position": "learned"},
        "layers": {"width": 64, "depth": 2, "mlp_ratio": 2, "head_dim": 16, "mixer": "relative"},
    },
}


def arch(resolution=32, embed=None, **layers):
    stages = {
        "embed": DOCUMENT["stages"]["embed"] | (embed or {}),
        "layers": DOCUMENT["stages"]["layers"] | layers,
    }
    return SPACE.from_document(DOCUMENT | {"resolution": resolution, "stages": stages})


@pytest.fixture(scope="module")
def supernet():
    return Supernet(SPACE)


def test_blocks_by_hand():
    layer = (
        "metaformer.shell(c=64)@10",
        "mix.relative(c=64,heads=4,base=8)@10",
        "metaformer.mlp(c=64,ratio=2)@10",
    )
    assert arch(40).keys() == (
        "embed.patch(in=3,d=48,k=4,s=4)@40",
        "pos.learned(c=48,base=8)@10",
        "conv.linear(in=48,out=64,k=1,s=1)@10",
        *layer,
        *layer,
        "head.bnfc(in=64,classes=10)@10",
    )
    assert arch().to_document() == DOCUMENT


def test_a_kind_that_the_space_lacks_is_refused_in_one_line():
    with raises("invalid_architecture") as refused:
        arch(mixer="alibi")
    assert str(refused.value) == f"layers.mixer must be one of {', '.join(ATTENTIONS)}, not 'alibi'"


def test_all_resolutions_share_the_tables(supernet):
    slices = [{part.name: part for part in supernet.slices(arch(px))} for px in SPACE.resolutions]
    assert slices[0] == slices[1] == slices[2]
    assert slices[0]["1.table.table"].whole
    assert slices[0]["1.table.table"].shape == (1, 48, 8, 8)
    assert slices[0]["3.layers.0.bias.table"].shape == (15 * 15, 4)


@pytest.mark.parametrize("px", SPACE.resolutions)
def test_gradients_reach_the_tables_of_the_base(supernet, px):
    supernet.zero_grad()
    images = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(0))
    supernet(images, arch(px)).square().sum().backward()
    for name in ("embed_learned.table.table", "layers_0relative.layers.0.bias.table"):
        gradient = supernet.get_parameter(f"slots.{name}").grad
        assert gradient.count_nonzero() > 0.9 * gradient[:, :4].numel()


def test_attentions_share_the_mlp_and_embeddings_the_positions(supernet):
    kinds = [
        arch(embed={"embed": embed}, mixer=mixer)
        for embed, mixer in itertools.product(EMBEDDINGS, ATTENTIONS)
    ]
    sources = [{part.source for part in supernet.slices(each)} for each in kinds]
    common = set.intersection(*sources)
    assert {name.split(".")[1] for name in common} == {
        "embed_learned",
        "layers_embed",
        "layers_0feed",
        "layers_1feed",
        "head_bnfc",
    }


@pytest.mark.parametrize("mixer", ATTENTIONS)
def test_every_attention_has_a_slot_for_most_heads(supernet, mixer):
    """96 channels are 3 heads of 32 or 6 of 16: the largest head_dim alone would leave no bias for three."""
    for head_dim in (16, 32):
        network = supernet.extract(arch(width=96, depth=4, head_dim=head_dim, mixer=mixer))
        assert network[5].layers[0].heads == 96 // head_dim


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_positions_are_what_tells_pixels_apart(supernet, position):
    """Attention alone is the same for any order of the patches; all kinds of positions change that but none."""
    network = supernet.extract(arch(embed={"position": position}, mixer="mha")).eval()
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(1, 3, 8, 4, 8, 4, generator=generator)
    shuffled = patches[:, :, torch.randperm(8, generator=generator)]
    outputs = [network(each.reshape(1, 3, 32, 32)) for each in (patches, shuffled)]
    assert torch.allclose(*outputs, atol=1e-5) == (position == "none")


def test_fewer_heads_share_all_weights():
    """Query, key and value of equal width are the same channels, however many heads they are divided into."""
    supernet = Supernet(SPACE)
    many, few = arch(head_dim=16, mixer="mha"), arch(head_dim=32, mixer="mha")
    assert supernet.slices(many) == supernet.slices(few)
    narrow = arch(width=64, mixer="mha")
    part = next(part for part in supernet.slices(narrow) if part.name == "3.layers.0.qkv.weight")
    stored = supernet.get_parameter(part.source)
    taken, whole = part.take(stored).reshape(3, 64, 64), stored.reshape(3, 96, 96)
    assert torch.equal(taken, whole[:, :64, :64])
