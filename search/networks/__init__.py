"""Torch modules of blocks, and standalone networks built from them.

Importing this package imports every file in it, which registers the modules of all kinds.
"""

import importlib
import pkgutil

from search.networks.module import module_around, module_of
from search.networks.network import Network, build_block, build_group, build_network

__all__ = [
    "Network",
    "build_block",
    "build_group",
    "build_network",
    "module_around",
    "module_of",
]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
