"""Random weights under which outputs tell one network from another."""

import torch
from torch import nn


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights, biases and running statistics drawn around usual ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif tensor.dim() > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(0.7, 1.3, generator=generator)
    return module
