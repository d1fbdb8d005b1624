"""NASWOT by hand, and on networks."""

import numpy as np
import pytest
import torch
from torch import nn

from search.algorithms import open_objective
from search.algorithms.naswot import naswot
from search.spaces import get_space


def test_by_hand():
    """Two images, three units: patterns 101 and 100 agree in two units."""
    network = nn.Sequential(nn.ReLU())
    images = torch.tensor([[1.0, -1, 2], [3, -2, -1]])
    assert naswot(network, images) == pytest.approx(np.log(np.linalg.det([[3, 2], [2, 3]])))


def test_layers_add_up_and_equal_patterns_score_nothing():
    images = torch.tensor([[1.0, -1, 2], [3, -2, -1]])
    assert naswot(nn.Sequential(nn.GELU(), nn.ReLU()), images) == pytest.approx(np.log(36 - 16), rel=1e-6)
    assert naswot(nn.Sequential(nn.ReLU()), images[[0, 0]]) < -20


def test_patches_next_to_each_other_belong_to_their_image():
    """(P B, N) with P = 2 patches of B = 2 images has the rows of images 0, 1, 0, 1."""

    class Unfold(nn.Module):
        def forward(self, x):
            return x.reshape(2, 2, 2).transpose(0, 1).reshape(4, 2)

    images = torch.tensor([[1.0, -1, 2, 2], [3, -2, -1, 2]])
    whole, patches = (nn.Sequential(*first, nn.ReLU()) for first in ((), (Unfold(),)))
    assert naswot(patches, images) == pytest.approx(naswot(whole, images))


@pytest.mark.parametrize("name", ["autovit-nano", "nasbench-macro"])
def test_scores_repeat_and_prefer_larger_networks(name):
    objective = open_objective("naswot")
    archs = sorted(get_space(name), key=lambda arch: arch.macs().conv_linear)
    small, large = objective.accuracy(archs[0]), objective.accuracy(archs[-1])
    assert 0 < small < large < 1
    assert open_objective("naswot").accuracy(archs[0]) == small
    assert open_objective("naswot", data="digits").fingerprint != objective.fingerprint
    assert 0 < open_objective("naswot", data="digits").accuracy(archs[0]) < 1
