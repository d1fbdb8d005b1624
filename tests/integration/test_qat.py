"""Fine-tuning for int8: the rounding is in the loss, and what was trained are ordinary weights of the network."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.export import ExportSpec
from orchestrator.export.lower.quantize import weights_of, with_fake_quantization
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.train import train_qat
from orchestrator.tasks.train_options import QatOptions
from orchestrator.winner.card import weighted
from search.blocks import parse_keys
from search.networks import build_network
from search.spaces import get_space
from tests.support.errors import raises

KEYS = ("conv(in=3,out=8,k=3,s=2)@16", "mbconv(in=8,out=8,k=3,e=2,s=1)@8", "head.fc(in=8,classes=10)@8")


def test_the_graph_rounds_and_gives_its_weights_back_under_their_names() -> None:
    torch.manual_seed(0)
    network = build_network(parse_keys(KEYS))
    images = torch.randn(4, 3, 16, 16)
    exact = network.train()(images).detach()
    prepared = with_fake_quantization(network, images)
    rounded = prepared(images)
    error = float((rounded - exact).detach().abs().max() / exact.abs().max())
    assert 1e-3 < error < 0.3
    before = {name: value.clone() for name, value in weights_of(prepared, network).items()}
    assert set(before) == set(network.state_dict())
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-2)
    torch.autograd.backward(rounded.square().mean())
    optimizer.step()
    after = weights_of(prepared, network)
    unmoved = [name for name, _ in network.named_parameters() if torch.equal(before[name], after[name])]
    assert not unmoved, "every weight has a gradient through the rounding"
    assert after["0.bn.running_mean"].abs().sum() > 0
    network.load_state_dict(after)


@pytest.fixture(scope="module")
def arch():
    return min(itertools.islice(get_space("autovit-nano"), 200), key=lambda arch: arch.params()).with_classes(
        10
    )


def options(arch, given, output, **changes):
    values = {"recipe": "finetune", "epochs": 1, "batch_size": 256, **changes}
    return QatOptions(arch=arch, data="digits", init=str(given), output=output, **values)


def test_a_network_is_fine_tuned_from_a_file_and_loads_again(arch, tmp_path) -> None:
    module, _ = build_module(ExportSpec(arch.keys()))
    given = tmp_path / "given.safetensors"
    save_file(module.state_dict(), given)
    messages: list[str] = []
    tuned = train_qat(options(arch, given, tmp_path / "qat"), lambda event: messages.append(str(event)))
    assert tuned.facts["steps"] == len(messages) == 5
    assert "loss" in messages[-1]
    before, after = load_file(given), load_file(tuned.weights)
    assert {name: value.shape for name, value in after.items()} == {n: v.shape for n, v in before.items()}
    assert not torch.equal(after[next(iter(after))], before[next(iter(after))])
    again, _ = build_module(weighted(ExportSpec(arch.keys()), tuned.weights))
    assert not again.training
    printed = json.loads((tmp_path / "qat" / "qat.json").read_text())
    assert printed["recipe"]["epochs"] == 1


def test_weights_that_do_not_fit_are_named(arch, tmp_path) -> None:
    module, _ = build_module(ExportSpec(arch.with_classes(7).keys()))
    given = tmp_path / "given.safetensors"
    save_file(module.state_dict(), given)
    with raises("wrong_weights"):
        train_qat(options(arch, given, tmp_path / "qat"))


def test_a_batch_needs_its_images(arch, tmp_path) -> None:
    given = tmp_path / "given.safetensors"
    save_file(build_module(ExportSpec(arch.keys()))[0].state_dict(), given)
    with raises("batch_too_large"):
        train_qat(options(arch, given, tmp_path / "o", batch_size=4096))
