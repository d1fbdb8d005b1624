"""Spaces and architectures by name: those of the package, and those that a user's code registers."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError, unknown
from search.spaces import autovit, autovit_table1, efficientvit, mobilevit, nasbench_macro
from search.spaces.arch import Arch
from search.spaces.plugins import load_installed
from search.spaces.space import Space
from search.spaces.task_names import TaskName, task_name
from search.spaces.whole import is_timm, timm_arch, timm_space

MAX_ARCH_BYTES = 64 * 1024
"""Largest architecture file that is read; the largest of a registered space has under 1 KiB."""

STDIN = "-"
"""In the place of a file's name: what is piped in."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""As LUTs have names of spaces, which are names of folders."""

_FAMILIES = (autovit, autovit_table1, mobilevit, efficientvit, nasbench_macro)
_SPACES: dict[str, Space] = {space.name: space for family in _FAMILIES for space in family.SPACES}
_ARCHS: dict[str, Arch] = {name: arch for family in _FAMILIES for name, arch in family.PAPER_ARCHS.items()}


def register_space(space: Space, archs: Mapping[str, Arch] = MappingProxyType({})) -> Space:
    """Make a space known by its name, and some of its architectures by theirs.

    Returns:
        The space.

    Raises:
        UsageError: a name can't be one or is registered already, a stage or an architecture makes no blocks.
    """
    for name in (space.name, *archs):
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} cannot be a name; take a-z, 0-9, dots and dashes, 64 at most")
    _check(space)
    for name, arch in archs.items():
        if arch.space != space.name:
            raise UsageError(f"{name} is an architecture of {arch.space}, not of {space.name}")
        arch.blocks()
    taken = [*({space.name} & _SPACES.keys()), *sorted(archs.keys() & _ARCHS.keys())]
    if taken:
        raise UsageError(f"{taken[0]!r} is registered twice; take another name")
    _SPACES[space.name] = space
    _ARCHS.update(archs)
    return space


def _check(space: Space) -> None:
    """`UsageError` where a part of the space is missing or makes no blocks."""
    for stage in space.stages:
        if "stride" not in dict(stage.fixed) or "width" not in stage.names:
            raise UsageError(f"{space.name}: stage {stage.name} needs a fixed `stride` and a choice `width`")
        for name, values in stage.choices:
            if not values or list(values) != sorted(set(values)):
                raise UsageError(f"{space.name}: {stage.name}.{name}={values} is not in ascending order")
    if not space.heads or not space.stage_counts or space.default_resolution not in space.resolutions:
        raise UsageError(f"{space.name} needs heads, stage counts, and its default among its resolutions")
    if not 0 < min(space.stage_counts) <= max(space.stage_counts) <= len(space.stages):
        raise UsageError(f"{space.name}: {list(space.stage_counts)} stages, but it has {len(space.stages)}")
    try:
        space.block_specs((space.default_resolution,))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{space.name} makes no blocks ({type(error).__name__}: {error})") from error
    if not space.size():
        raise UsageError(f"{space.name} has no architecture: widths must not shrink from stage to stage")


def list_spaces() -> tuple[Space, ...]:
    """All registered spaces."""
    load_installed()
    return tuple(_SPACES.values())


def list_archs() -> dict[str, Arch]:
    """All named architectures."""
    load_installed()
    return dict(_ARCHS)


def get_space(name: str) -> Space:
    """A space by name, its sibling `SPACE.HEAD`, or that of `timm:NAME[@PX]` alone; `UsageError` for others."""
    if is_timm(name):
        return timm_space(name)
    load_installed()
    task = None if name in _SPACES else TaskName.parse(name)
    if task is not None and task.base in _SPACES:
        sibling = _sibling(_SPACES[task.base], task.head)
        return sibling.with_classes(task.classes) if task.classes else sibling
    if name not in _SPACES:
        raise UsageError(unknown("space", name, _SPACES))
    return _SPACES[name]


def get_arch(name: str) -> Arch:
    """A named architecture, with a task's head where its name ends in one (`NAME.ssdlite`), or `timm:NAME[@PX]` as
    one; `UsageError` names the known ones."""
    if is_timm(name):
        return timm_arch(name)
    load_installed()
    task = None if name in _ARCHS else TaskName.parse(name)
    if task is not None and task.base in _ARCHS:
        return with_head(_ARCHS[task.base], task.head, task.classes)
    if name not in _ARCHS:
        raise UsageError(unknown("architecture", name, _ARCHS, "or a JSON file"))
    return _ARCHS[name]


@functools.lru_cache(maxsize=64)
def _sibling(space: Space, head: str) -> Space:
    return space.with_task_head(head)


def with_head(arch: Arch, head: str, classes: int | None = None) -> Arch:
    """The network with a task's head in the place of its own, for as many classes as the task has by default.

    Raises:
        UsageError: not a task's head, or the network's maps are too small for it.
    """
    base = TaskName.parse(arch.space)
    name = task_name(base.base if base else arch.space, head)
    if is_timm(name):
        made = timm_arch(name)
    else:
        sibling = get_space(name)
        made = Arch(sibling, arch.resolution, head, sibling.default_classes, arch.stages)
    made = made.with_classes(classes) if classes else made
    made.blocks()
    return made


def arch_from_json(text: str) -> Arch:
    """An architecture of its JSON text.

    Raises:
        InvalidArtifactError: not a JSON object, or over 64 KiB.
        UsageError: unknown space, or a value that is not a choice of it.
    """
    if len(text) > MAX_ARCH_BYTES:
        raise InvalidArtifactError(f"architecture of over {MAX_ARCH_BYTES} bytes; is this the right file?")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(f"architecture is not JSON ({error}); see `bench arch show`") from error
    if not isinstance(document, dict) or not isinstance(document.get("space"), str):
        raise InvalidArtifactError("architecture is not a JSON object with a `space`; see `bench arch show`")
    return get_space(document["space"]).from_document(document)


def is_arch_file(name_or_path: str) -> bool:
    """Whether it says where an architecture's JSON lies, and is not a name: `F.json`, `-`, `/dev/stdin`."""
    if name_or_path in list_archs():
        return False
    return name_or_path == STDIN or name_or_path.endswith(".json") or name_or_path.startswith("/")


def load_arch(name_or_path: str) -> Arch:
    """A named architecture, or one read from a JSON file, which errors name; `-` is standard input."""
    if not is_arch_file(name_or_path):
        return get_arch(name_or_path)
    path = Path(name_or_path)
    try:
        if name_or_path == STDIN:
            return arch_from_json(sys.stdin.read(MAX_ARCH_BYTES + 1))
        with path.open(encoding="utf-8") as file:
            return arch_from_json(file.read(MAX_ARCH_BYTES + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(f"{path}: cannot read the architecture ({error})") from error
    except BlocktimeError as error:
        raise type(error)(f"{'standard input' if name_or_path == STDIN else path}: {error}") from error
