"""Random weights that leave a network well-conditioned, so that a parity check means something."""

import copy

import torch
from torch import Tensor, nn

from orchestrator.export.lower.source import MAX_GAIN, MAX_HALVINGS, PERTURBATION, build_seeded, calm, settle
from search.blocks import parse_keys
from search.networks import build_network

CASCADE = (
    "conv(in=3,out=64,k=3,s=1)@16",
    *["evit.cga(c=64,heads=4,qk=16,v=16,kernels=5555,window=8)@16"] * 3,
    "head.fc(in=64,classes=10)@16",
)
"""Attention without norms in between: its values grow until softmax decides by rounding."""

TAME = (
    "conv(in=3,out=8,k=3,s=2)@32",
    "mbconv(in=8,out=16,k=3,e=2,s=2)@16",
    "mvit.shell(c=16,d=16,patch=2)@8",
    "mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8",
    "head.fc(in=16,classes=10)@8",
)


def seeded(keys: tuple[str, ...]) -> nn.Module:
    return build_seeded(lambda: build_network(parse_keys(keys)), 0)


def image(side: int) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def gain(module: nn.Module, x: Tensor) -> float:
    y = module(x)
    moved = module(x + PERTURBATION * x.flip(-1)) - y
    return float(moved.abs().max() / y.abs().max() / PERTURBATION)


def test_unstable_network_takes_input_scale() -> None:
    module, x = seeded(CASCADE), image(16)
    assert gain(module, x) > MAX_GAIN
    settle(module, (x,))
    assert gain(module, x) < 1


def test_a_network_that_does_not_keeps_every_weight() -> None:
    module, x = seeded(TAME), image(32)
    before = copy.deepcopy(module.state_dict())
    settle(module, (x,))
    calm(module, (x,))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_calm_scales_linear_weights() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 16)
            nn.init.normal_(self.fc.weight, 0.0, 50.0, generator=torch.Generator().manual_seed(0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.fc(x))

    module, x = Waves().eval(), torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1))
    before = module.fc.weight.clone()
    assert gain(module, x) > MAX_GAIN
    calm(module, (x,))
    assert gain(module, x) <= MAX_GAIN
    halvings = torch.log2(before / module.fc.weight)
    assert 1 <= halvings[0, 0] == halvings.round()[0, 0] <= MAX_HALVINGS
