"""What the study of inheritance sets to zero is all that transformer layers add, and nothing else."""

import random

import torch

from search.networks.mobilevit import TransformerLayer
from search.networks.network import build_network
from search.spaces import get_space
from search.supernet.model.supernet import Supernet
from tools.studies._layers import layer_outputs


@torch.no_grad()
def test_without_them_every_transformer_layer_is_the_identity():
    network = build_network(get_space("autovit-cifar").sample(random.Random(0)).blocks())
    layers = [module for module in network.modules() if isinstance(module, TransformerLayer)]
    assert layers
    parameters = layer_outputs(network)
    assert len(parameters) == 4 * len(layers)
    for parameter in parameters:
        parameter.zero_()
    for layer in layers:
        tokens = torch.randn(4, 16, layer.norm1.normalized_shape[0])
        assert torch.equal(layer(tokens), tokens)


def test_those_of_a_stage_are_told_by_its_name():
    supernet = Supernet(get_space("autovit-cifar"))
    whole, *parts = (
        {id(parameter) for parameter in layer_outputs(supernet, within)}
        for within in ("", ".transformer1_", ".transformer2_")
    )
    assert all(len(part) == 8 for part in parts), "two layers of a stage, weights and biases of two outputs"
    assert set.union(*parts) == whole
    assert not layer_outputs(supernet, ".mbconv1_")
