"""Search spaces as data, the architectures in them, the operations that search needs, and published networks."""

from search.spaces.arch import Arch
from search.spaces.family import register_head, register_stage
from search.spaces.layout import Stage, Value
from search.spaces.published import Published, list_published
from search.spaces.registry import (
    STDIN,
    arch_from_json,
    get_arch,
    get_space,
    is_arch_file,
    list_archs,
    list_spaces,
    load_arch,
    register_space,
)
from search.spaces.space import Space

__all__ = [
    "STDIN",
    "Arch",
    "Published",
    "Space",
    "Stage",
    "Value",
    "arch_from_json",
    "get_arch",
    "get_space",
    "is_arch_file",
    "list_archs",
    "list_published",
    "list_spaces",
    "load_arch",
    "register_head",
    "register_space",
    "register_stage",
]
