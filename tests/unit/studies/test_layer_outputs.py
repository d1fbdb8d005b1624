"""What the study of inheritance sets to zero is all that transformer layers add, and nothing else."""

import random

import torch

from search.networks.mobilevit import TransformerLayer
from search.networks.network import build_network
from search.spaces import get_space
from tools.studies.inheritance import layer_outputs


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
