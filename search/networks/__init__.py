"""Torch modules of blocks, and standalone networks built from them.

Importing this package registers the modules of all kinds of blocks.
"""

from search.networks import (
    efficient_cnns,
    efficientvit,
    mixers,
    mobilenet,
    mobilevit,
    task_heads,
    timm_networks,
    token_transformers,
    vit,
)
from search.networks.network import (
    Network,
    build_block,
    build_group,
    build_network,
    module_around,
    module_of,
)

FAMILIES = (
    efficient_cnns,
    efficientvit,
    mixers,
    mobilenet,
    mobilevit,
    task_heads,
    timm_networks,
    token_transformers,
    vit,
)
"""Modules that are imported for the torch modules that they register."""

__all__ = [
    "Network",
    "build_block",
    "build_group",
    "build_network",
    "module_around",
    "module_of",
]
