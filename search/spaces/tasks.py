"""The task that an architecture is for, and the same backbone for another one."""

from __future__ import annotations

from typing import Literal, get_args

from luts.format.errors import UsageError, unknown
from search.spaces.arch import Arch
from search.spaces.family import task_heads
from search.spaces.registry import get_space, with_head
from search.spaces.task_heads import DEFAULT_HEADS
from search.spaces.task_names import TaskName
from search.spaces.whole import is_timm, timm_arch

Task = Literal["classification", "detection", "segmentation"]

TASKS: tuple[Task, ...] = get_args(Task)


def heads_of(task: str) -> tuple[str, ...]:
    """The heads of a task, its default first; `UsageError` for a task that there is not."""
    if task not in DEFAULT_HEADS:
        raise UsageError(unknown("task", task, TASKS))
    others = [name for name, head in task_heads().items() if head.task == task]
    return tuple(dict.fromkeys((DEFAULT_HEADS[task], *others)))


def task_of(arch: Arch) -> Task:
    """What an architecture's head is for."""
    name = TaskName.parse(arch.space)
    return task_heads()[name.head].task if name else "classification"


def with_task(arch: Arch, task: str, classes: int | None = None, head: str = "") -> Arch:
    """The architecture's backbone for a task.

    Args:
        arch: Of any task.
        task: Which.
        classes: Categories, of detection and segmentation without the background; as many as COCO or VOC has.
        head: One of the task's; its default.

    Raises:
        UsageError: a task or head that there is not, or maps that are too small for the head.
    """
    if task == "classification":
        plain = without_task(arch)
        return plain.with_classes(classes) if classes else plain
    known = heads_of(task)
    if head and head not in known:
        raise UsageError(f"{task} has no head {head!r}; it has {', '.join(known)}")
    return with_head(arch, head or known[0], classes)


def without_task(arch: Arch) -> Arch:
    """The classifier with the same backbone, of its space's default head and classes; itself where it is one."""
    name = TaskName.parse(arch.space)
    if name is None:
        return arch
    if is_timm(name.base):
        return timm_arch(name.base)
    space = get_space(name.base)
    return Arch(space, arch.resolution, space.heads[0], space.default_classes, arch.stages)
