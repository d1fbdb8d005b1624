"""Search spaces as data, the architectures in them, and the operations that search needs."""

from search.spaces.arch import Arch
from search.spaces.registry import get_arch, get_space, list_archs, list_spaces, load_arch
from search.spaces.space import Space, Stage, Value

__all__ = [
    "Arch",
    "Space",
    "Stage",
    "Value",
    "get_arch",
    "get_space",
    "list_archs",
    "list_spaces",
    "load_arch",
]
