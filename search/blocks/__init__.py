"""Blocks: the key, the operations and the costs of every building block of a network.

Importing this package registers all kinds. Nothing here loads torch: a block's module is
`search.networks.module_of(spec)`.
"""

from search.blocks import (
    cvt,
    efficient_cnns,
    efficientvit,
    embeddings,
    metaformer,
    mixers,
    positions,
    task_heads,
    transformers,
    vit,
)
from search.blocks.mobilenet import Conv, ConvHead, FcHead, MBConv, MbPoolHead
from search.blocks.mobilevit import MobileViTLayer, MobileViTShell
from search.blocks.ops import Activation, OpList
from search.blocks.sequence import (
    Group,
    boundary_bytes,
    check_chain,
    count,
    group_blocks,
    peak_activation_bytes,
)
from search.blocks.spec import (
    BlockSpec,
    EnclosingSpec,
    Factors,
    Macs,
    SideSpec,
    kinds,
    param,
    parse_key,
    parse_keys,
    register,
)
