"""Weight-sharing efficiency: by hand, and counted weight by weight in a real supernet."""

import dataclasses
import itertools
import random

import pytest
import torch

from search.spaces import get_space
from search.supernet.inherit import efficiency, partition, sharing
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.samplers import largest, smallest

NANO = get_space("autovit-nano")


def test_efficiency_by_hand():
    """Of 6 common weights networks of 6, 12 and 24 share all, a half and a quarter."""
    assert efficiency(6, [6, 12, 24]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


def test_one_network_shares_all_of_itself():
    arch = NANO.sample(random.Random(0))
    found = sharing(NANO, [arch, arch])
    assert (found.efficiency, found.shared, found.subnets) == (1.0, arch.params(), 2)


def test_two_stems_by_hand():
    """A stem of 8 or 16 channels, all else alike; the first MBConv takes 8 of 16 input channels with it.

    Stem: 3x3x3 weights, BN scale and shift a channel. MBConv without expansion: 3x3 depthwise and its BN a channel,
    then a 1x1 convolution to 24 channels.
    """
    wide = dataclasses.replace(largest(NANO), stages=((16,), *largest(NANO).stages[1:]))
    narrow = dataclasses.replace(wide, stages=((8,), *wide.stages[1:]))
    lost = 8 * (27 + 2) + 8 * (9 + 2) + 8 * 24
    assert wide.params() - narrow.params() == lost
    found = sharing(NANO, [wide, narrow])
    assert found.shared == narrow.params()
    assert found.efficiency == pytest.approx((1 + narrow.params() / wide.params()) / 2)


def test_shared_weights_are_those_that_every_subnet_uses():
    rng = random.Random(7)
    archs = [NANO.sample(rng) for _ in range(6)]
    supernet = Supernet(NANO)
    uses = {name: torch.zeros_like(p) for name, p in supernet.named_parameters()}
    for arch in archs:
        for part in supernet.slices(arch):
            part.region(uses[part.source]).add_(1)
    found = sharing(NANO, archs)
    assert found.shared == sum(int((count == 6).sum()) for count in uses.values())
    assert found.efficiency == pytest.approx(sum(found.shared / arch.params() for arch in archs) / 6)
    assert found.supernet == sum(p.numel() for p in supernet.parameters())


def test_several_supernets_share_more_than_one():
    whole = sharing(NANO, partition(NANO, 1)[0])
    assert whole.shared <= smallest(NANO).params()
    parts = [sharing(NANO, archs) for archs in partition(NANO, 3)]
    assert sum(part.subnets for part in parts) == whole.subnets
    assert all(part.largest <= after.smallest for part, after in itertools.pairwise(parts))
    assert sum(part.efficiency * part.subnets for part in parts) / whole.subnets > whole.efficiency
