"""Search spaces as data, the architectures in them, the operations that search needs, and published networks."""

from search.spaces.arch import Arch
from search.spaces.published import Published, list_published
from search.spaces.registry import arch_from_json, get_arch, get_space, list_archs, list_spaces, load_arch
from search.spaces.space import Space, Stage, Value

__all__ = [
    "Arch",
    "Published",
    "Space",
    "Stage",
    "Value",
    "arch_from_json",
    "get_arch",
    "get_space",
    "list_archs",
    "list_published",
    "list_spaces",
    "load_arch",
]
