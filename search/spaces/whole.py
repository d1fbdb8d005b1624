"""Networks of timm as spaces of one member, so that they are trained, judged and exported as ours are."""

from __future__ import annotations

import functools
import re

from luts.format.errors import UsageError
from search.blocks.whole import WholeNetwork, timm_side
from search.spaces.arch import Arch
from search.spaces.family import is_head, register_head
from search.spaces.space import Space

_NAME = re.compile(r"timm:(?P<network>[a-z0-9_.]{1,80})(@(?P<side>[1-9][0-9]{0,3}))?")


def is_timm(name: str) -> bool:
    """Whether a name is that of a network of timm, or of the space of one."""
    return name.startswith("timm:")


@functools.lru_cache(maxsize=64)
def timm_space(name: str) -> Space:
    """The space of `timm:NAME[@PX]` alone, called `timm:NAME@PX`; it has no stages, its head is all of it.

    Raises:
        UsageError: timm has no such network.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name[:80]!r} is not a network of timm; those read timm:NAME or timm:NAME@PX")
    network, native = match["network"], timm_side(match["network"])
    side = int(match["side"] or native)
    head = f"timm:{network}"
    if not is_head(head):
        register_head(head, lambda resolution, _, classes: WholeNetwork(resolution, classes, network))
    return Space(f"{head}@{side}", (), (0,), (side,), (head,), side, 1000)


def timm_arch(name: str) -> Arch:
    """The one member of `timm_space`."""
    space = timm_space(name)
    return Arch(space, space.default_resolution, space.heads[0], space.default_classes, ())
