"""Torch modules of blocks, and standalone networks built from them.

Importing this package registers the modules of all kinds of blocks.
"""

from search.networks import (
    cvt,
    efficient_cnns,
    efficientvit,
    embeddings,
    local_mixers,
    mixers,
    mobilenet,
    mobilevit,
    positions,
    task_heads,
    transformers,
    vit,
)
from search.networks.network import (
    Network,
    build_block,
    build_group,
    build_network,
    build_segment,
    module_around,
    module_of,
)
