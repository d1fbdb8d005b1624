"""Block specifications: the key, the parameters, the MACs and the activation traffic of every building block.

Importing this package registers all kinds. Nothing here needs torch.
"""

from search.blocks.conv import Conv
from search.blocks.head import FcHead, MbPoolHead
from search.blocks.mbconv import MBConv
from search.blocks.mobilevit import MobileViTLayer, MobileViTShell
from search.blocks.sequence import boundary_bytes, check_chain, count, peak_activation_bytes
from search.blocks.spec import BlockSpec, Macs, parse_key, parse_keys

__all__ = [
    "BlockSpec",
    "Conv",
    "FcHead",
    "MBConv",
    "Macs",
    "MbPoolHead",
    "MobileViTLayer",
    "MobileViTShell",
    "boundary_bytes",
    "check_chain",
    "count",
    "parse_key",
    "parse_keys",
    "peak_activation_bytes",
]
