"""Spaces and architectures by name: the package's, those of plug-ins, networks of timm, with heads of tasks."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError, unknown
from luts.format.registry import NAME, Registry
from search.blocks import BlockSpec
from search.blocks.timm_networks import TimmNetwork, feature_maps, native_side
from search.spaces import autovit, efficientvit, metaformer, mobilevit, nasbench_macro, positions, vit
from search.spaces.plugins import load_installed
from search.spaces.space import Arch, Space
from search.spaces.stages import (
    DEFAULT_HEADS,
    FIRST_STRIDE,
    HEADS,
    TASKS,
    Stage,
    TaskName,
    classifier,
    expand_head,
)

MAX_ARCH_BYTES = 64 * 1024
"""Largest architecture file that is read; the largest of a registered space has under 1 KiB."""

STDIN = "-"
"""Stands for standard input instead of a file's name."""

SPACES: Registry[Space] = Registry("space", load_installed)
ARCHS: Registry[Arch] = Registry("architecture", load_installed)

for _family in (autovit, mobilevit, efficientvit, nasbench_macro, metaformer, positions, vit):
    SPACES.items |= {space.name: space for space in _family.SPACES}
    ARCHS.items |= _family.PAPER_ARCHS

_TIMM_NAME = re.compile(r"timm:(?P<network>[a-z0-9_.]{1,80})(@(?P<side>[1-9][0-9]{0,3}))?")


def register_space(space: Space, archs: Mapping[str, Arch] = MappingProxyType({})) -> Space:
    """Register a space under its name, and architectures of it under their names; return the space.

    Raises:
        UsageError: a name is invalid or taken, a stage or an architecture makes no blocks.
    """
    for name in (space.name, *archs):
        if not re.fullmatch(NAME, name):
            raise UsageError(
                f"{name[:80]!r} is not a valid name; use at most 64 of a-z, 0-9, ., _ and -",
                code="invalid_name",
            )
    _check_space(space)
    for name, arch in archs.items():
        if arch.space != space.name:
            raise UsageError(
                f"{name} is an architecture of {arch.space}, not of {space.name}", code="not_in_space"
            )
        arch.blocks()
    taken = [*({space.name} & SPACES.items.keys()), *sorted(archs.keys() & ARCHS.items.keys())]
    if taken:
        raise UsageError(f"{taken[0]!r} is registered twice; use another name", code="name_taken")
    SPACES.items[space.name] = space
    ARCHS.items.update(archs)
    return space


def _check_space(space: Space) -> None:
    """Raise `UsageError` if a part of the space is missing or makes no blocks."""
    for stage in space.stages:
        _check_stage(space.name, stage)
    if not space.heads or not space.stage_counts or space.default_resolution not in space.resolutions:
        raise _invalid_space(
            f"{space.name} needs heads, stage counts, and its default resolution among its resolutions"
        )
    if not 0 < min(space.stage_counts) <= max(space.stage_counts) <= len(space.stages):
        raise _invalid_space(
            f"{space.name} has {len(space.stages)} stages, not {list(space.stage_counts)}; change stage_counts"
        )
    try:
        space.block_specs((space.default_resolution,))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise _invalid_space(f"{space.name} makes no blocks ({type(error).__name__}: {error})") from error
    if not space.size():
        raise _invalid_space(f"{space.name} has no architecture: widths must not shrink from stage to stage")


def _check_stage(space: str, stage: Stage) -> None:
    if "stride" not in dict(stage.fixed) or "width" not in stage.names:
        raise _invalid_space(f"{space}: stage {stage.name} needs a fixed `stride` and a choice `width`")
    for name, values in stage.choices:
        if not values or list(values) != sorted(set(values)):
            raise _invalid_space(f"{space}: {stage.name}.{name}={values} is not in ascending order")
    for name, kinds in stage.labels:
        if dict(stage.choices).get(name) != tuple(range(len(kinds))):
            raise _invalid_space(
                f"{space}: {stage.name}.{name} needs the values 0 to {len(kinds) - 1}, one for each label"
            )


def _invalid_space(message: str) -> UsageError:
    return UsageError(message, code="invalid_space")


def list_spaces() -> tuple[Space, ...]:
    """Return all registered spaces."""
    return tuple(SPACES.get(name) for name in SPACES.names())


def list_archs() -> dict[str, Arch]:
    """Return all named architectures."""
    return {name: ARCHS.get(name) for name in ARCHS.names()}


def get_space(name: str) -> Space:
    """Return a space by its name, with a task's head (`SPACE.HEAD`), or of `timm:NAME[@PX]`.

    Raises:
        UsageError: unknown space.
    """
    if is_timm(name):
        return timm_space(name)
    task = None if name in SPACES else TaskName.parse(name)
    if task is not None and task.base in SPACES:
        space = _with_task_head(SPACES.get(task.base), task.head)
        return space.with_classes(task.classes) if task.classes else space
    return SPACES.get(name)


def get_arch(name: str) -> Arch:
    """Return an architecture by its name, with a task's head (`NAME.ssdlite`), or of `timm:NAME[@PX]`.

    Raises:
        UsageError: unknown architecture; the message lists similar names.
    """
    if is_timm(name):
        return timm_arch(name)
    task = None if name in ARCHS else TaskName.parse(name)
    if task is not None and task.base in ARCHS:
        return with_head(ARCHS.get(task.base), task.head, task.classes)
    if name not in ARCHS:
        raise UsageError(
            unknown("architecture", name, ARCHS.names(), "or a JSON file"), code="unknown_architecture"
        )
    return ARCHS.get(name)


@functools.lru_cache(maxsize=64)
def _with_task_head(space: Space, head: str) -> Space:
    return space.with_task_head(head)


def arch_from_json(text: str) -> Arch:
    """Return the architecture of its JSON text.

    Raises:
        InvalidArtifactError: not a JSON object, or over 64 KiB.
        UsageError: unknown space, or a value that is not a choice of it.
    """
    if len(text) > MAX_ARCH_BYTES:
        raise InvalidArtifactError(
            f"architecture of over {MAX_ARCH_BYTES} bytes; check that this is the right file",
            code="invalid_architecture",
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(
            f"architecture is not JSON ({error}); see `bench arch show`", code="invalid_architecture"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("space"), str):
        raise InvalidArtifactError(
            "architecture is not a JSON object with a `space`; see `bench arch show`",
            code="invalid_architecture",
        )
    return get_space(document["space"]).from_document(document)


def is_arch_file(name_or_path: str) -> bool:
    """Whether the text means a file with an architecture's JSON: `F.json`, `-`, `/dev/stdin`."""
    if name_or_path in ARCHS:
        return False
    return name_or_path == STDIN or name_or_path.endswith(".json") or name_or_path.startswith("/")


def load_arch(name_or_path: str) -> Arch:
    """Return a named architecture, or read one from a JSON file; `-` is standard input.

    Raises:
        InvalidArtifactError: the file cannot be read or is not an architecture; the message names it.
        UsageError: unknown name, or a value that is not a choice of the space.
    """
    if not is_arch_file(name_or_path):
        return get_arch(name_or_path)
    path = Path(name_or_path)
    try:
        if name_or_path == STDIN:
            return arch_from_json(sys.stdin.read(MAX_ARCH_BYTES + 1))
        with path.open(encoding="utf-8") as file:
            return arch_from_json(file.read(MAX_ARCH_BYTES + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(
            f"{path}: cannot read the architecture ({error})", code="unreadable_file"
        ) from error
    except BlocktimeError as error:
        source = "standard input" if name_or_path == STDIN else path
        raise type(error)(f"{source}: {error}", code=error.code) from error


def is_timm(name: str) -> bool:
    """Whether a name is that of a network of timm, or of the space of one."""
    return name.startswith("timm:")


@functools.lru_cache(maxsize=64)
def timm_space(name: str) -> Space:
    """Return the space of `timm:NAME[@PX]` alone, called `timm:NAME@PX`.

    It has no stages; its head is the network. With a head of another task (`timm:NAME.ssdlite[@PX]`), the number of
    classes is not part of the name.

    Raises:
        UsageError: timm has no such network, or the head cannot use its maps.
    """
    task = TaskName.parse(name)
    match = _TIMM_NAME.fullmatch(task.base if task else name)
    if match is None:
        raise UsageError(
            f"{name[:80]!r} is not a network of timm; write timm:NAME or timm:NAME@PX",
            code="unknown_timm_model",
        )
    network, native = match["network"], native_side(match["network"])
    side = int(match["side"] or native)
    head = f"timm:{network}.{task.head}" if task else f"timm:{network}"
    make = functools.partial(_timm_block, network, task.head if task else "")
    HEADS.items.setdefault(head, classifier(make))  # not `add`: no plug-in's name has a colon
    classes = HEADS.get(task.head if task else head).classes
    expand_head(head, 3, (side,), classes)
    return Space(f"{head}@{side}", (), (0,), (side,), (head,), side, classes)


def _timm_block(network: str, head: str, resolution: int, _: int, classes: int) -> BlockSpec:
    """Return the classifier, or a head on the network's maps of stride `FIRST_STRIDE` and more, or the last two."""
    if not head:
        return TimmNetwork(resolution, classes, network)
    task, maps = HEADS.get(head), feature_maps(network, resolution)
    coarse = [feature_map for feature_map in maps if feature_map.stride >= FIRST_STRIDE]
    read = (coarse if len(coarse) > 1 else maps[-2:]) if task.side else maps[-1:]
    *earlier, last = read
    try:
        ends = task.ends(tuple(feature_map.side for feature_map in read), last.channels, classes)
    except UsageError as error:
        raise UsageError(f"timm:{network} at {resolution} px: {error}", code=error.code) from error
    sides = [task.side(each.side, each.channels, classes) for each in earlier] if task.side else []
    indices = tuple(feature_map.index for feature_map in read)
    return TimmNetwork(resolution, classes, network, head, indices, (*sides, *ends))


def timm_arch(name: str) -> Arch:
    """Return the only member of `timm_space`."""
    space, task = timm_space(name), TaskName.parse(name)
    classes = task.classes if task and task.classes else space.default_classes
    return Arch(space, space.default_resolution, space.heads[0], classes, ())


def with_head(arch: Arch, head: str, classes: int | None = None) -> Arch:
    """Return the network with a task's head instead of its own; the task's default number of classes if None.

    Raises:
        UsageError: not a task's head, or the network's maps are too small for it.
    """
    base = TaskName.parse(arch.space)
    name = str(TaskName(base.base if base else arch.space, head))
    if is_timm(name):
        result = timm_arch(name)
    else:
        space = get_space(name)
        result = Arch(space, arch.resolution, head, space.default_classes, arch.stages)
    result = result.with_classes(classes) if classes else result
    result.blocks()
    return result


def heads_of(task: str) -> tuple[str, ...]:
    """Return the heads of a task, its default first.

    Raises:
        UsageError: unknown task.
    """
    if task not in DEFAULT_HEADS:
        raise UsageError(unknown("task", task, TASKS), code="unknown_task")
    others = [name for name, head in HEADS.items.items() if head.task == task]
    return tuple(dict.fromkeys((DEFAULT_HEADS[task], *others)))


def with_task(arch: Arch, task: str, classes: int | None = None, head: str = "") -> Arch:
    """Return the architecture's backbone with a head for a task, its default head if none is named.

    Classes are without the background for detection and segmentation, by default those of COCO or VOC.

    Raises:
        UsageError: unknown task or head, or maps that are too small for the head.
    """
    if task == "classification":
        plain = without_task(arch)
        return plain.with_classes(classes) if classes else plain
    known = heads_of(task)
    if head and head not in known:
        raise UsageError(
            f"{task} has no head {head!r}; choose one of {', '.join(known)}", code="unknown_head"
        )
    return with_head(arch, head or known[0], classes)


def without_task(arch: Arch) -> Arch:
    """Return the classifier with the same backbone, of its space's default head and classes."""
    name = TaskName.parse(arch.space)
    if name is None:
        return arch
    if is_timm(name.base):
        return timm_arch(name.base)
    space = get_space(name.base)
    return Arch(space, arch.resolution, space.heads[0], space.default_classes, arch.stages)
