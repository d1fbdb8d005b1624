"""Search spaces as data, the architectures in them, the operations that search needs, and published networks."""

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
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_head, register_stage
