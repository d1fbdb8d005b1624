"""Block specifications: the key, the parameters, the MACs and the activation traffic of every building block.

Importing this package imports every file in it, which registers all kinds. Nothing here loads torch: a block's
module is `search.networks.module_of(spec)`.
"""

import importlib
import pkgutil

from search.blocks.conv import Conv
from search.blocks.head import ConvHead, FcHead, MbPoolHead
from search.blocks.mbconv import MBConv
from search.blocks.mobilevit import MobileViTLayer, MobileViTShell
from search.blocks.registry import kinds, parse_key, parse_keys, register
from search.blocks.sequence import (
    Group,
    boundary_bytes,
    check_chain,
    count,
    group_blocks,
    peak_activation_bytes,
)
from search.blocks.spec import BlockSpec, EnclosingSpec, Factors, Macs, SideSpec, param

__all__ = [
    "BlockSpec",
    "Conv",
    "ConvHead",
    "EnclosingSpec",
    "Factors",
    "FcHead",
    "Group",
    "MBConv",
    "Macs",
    "MbPoolHead",
    "MobileViTLayer",
    "MobileViTShell",
    "SideSpec",
    "boundary_bytes",
    "check_chain",
    "count",
    "group_blocks",
    "kinds",
    "param",
    "parse_key",
    "parse_keys",
    "peak_activation_bytes",
    "register",
]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
