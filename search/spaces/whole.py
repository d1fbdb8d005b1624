"""Networks of timm as spaces of one member, so that they are trained, judged and exported as ours are."""

from __future__ import annotations

import functools
import re

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.timm_networks import TimmNetwork, TimmTaskNetwork, feature_maps, native_side
from search.spaces.arch import Arch
from search.spaces.family import MakeHead, expand_head, is_head, register_head, task_heads
from search.spaces.maps import FIRST_STRIDE
from search.spaces.space import Space
from search.spaces.task_names import TaskName

_NAME = re.compile(r"timm:(?P<network>[a-z0-9_.]{1,80})(@(?P<side>[1-9][0-9]{0,3}))?")


def is_timm(name: str) -> bool:
    """Whether a name is that of a network of timm, or of the space of one."""
    return name.startswith("timm:")


@functools.lru_cache(maxsize=64)
def timm_space(name: str) -> Space:
    """The space of `timm:NAME[@PX]` alone, called `timm:NAME@PX`; it has no stages, its head is all of it.

    With a head of another task, `timm:NAME.ssdlite[@PX]`, likewise: the number of classes is no part of its name.

    Raises:
        UsageError: timm has no such network, or its maps are no use to the head.
    """
    task = TaskName.parse(name)
    match = _NAME.fullmatch(task.base if task else name)
    if match is None:
        raise UsageError(f"{name[:80]!r} is not a network of timm; those read timm:NAME or timm:NAME@PX")
    network, native = match["network"], native_side(match["network"])
    side = int(match["side"] or native)
    head = f"timm:{network}.{task.head}" if task else f"timm:{network}"
    if not is_head(head):
        make = functools.partial(_with_task_head, network, task.head) if task else _classifying(network)
        register_head(head, make)
    classes = 1000
    if task:
        classes = task_heads()[task.head].classes
        expand_head(head, 3, (side,), classes)
    return Space(f"{head}@{side}", (), (0,), (side,), (head,), side, classes)


def _classifying(network: str) -> MakeHead:
    return lambda resolution, _, classes: TimmNetwork(resolution, classes, network)


def _with_task_head(network: str, head: str, resolution: int, _: int, classes: int) -> BlockSpec:
    """The network with a head on its maps: those of stride `FIRST_STRIDE` and more, or the last two."""
    task, maps = task_heads()[head], feature_maps(network, resolution)
    coarse = [one for one in maps if one.stride >= FIRST_STRIDE]
    taken = (coarse if len(coarse) > 1 else maps[-2:]) if task.side else maps[-1:]
    *earlier, last = taken
    try:
        ends = task.ends(tuple(one.side for one in taken), last.channels, classes)
    except UsageError as error:
        raise UsageError(f"timm:{network} at {resolution} px: {error}") from error
    beside = [task.side(one.side, one.channels, classes) for one in earlier] if task.side else []
    indices = tuple(one.index for one in taken)
    return TimmTaskNetwork(resolution, classes, network, head, indices, (*beside, *ends))


def timm_arch(name: str) -> Arch:
    """The one member of `timm_space`."""
    space, task = timm_space(name), TaskName.parse(name)
    classes = task.classes if task and task.classes else space.default_classes
    return Arch(space, space.default_resolution, space.heads[0], classes, ())
