"""Which processors there are to use, how many threads to take by default, and pinning threads to some cores."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

SYS_CPU = Path("/sys/devices/system/cpu")
_TASKS = Path("/proc/self/task")


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(allowed_cores()) or os.cpu_count() or 1


def allowed_cores() -> tuple[int, ...]:
    """The cores that the calling thread may run on; empty where a system has no such thing (macOS)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def threads_by_default(cores: Collection[int] | None = None, root: Path = SYS_CPU) -> int:
    """How many of `cores` (all that may be used) are not little: threads on little cores hold up the others.

    Little are the cores of the lowest maximal clock. Where all clocks are equal or one is not told, half of the
    cores, at least one: those of a computer are often two halves of one.
    """
    cores = allowed_cores() if cores is None else cores
    clocks = [_highest_khz(root / f"cpu{core}/cpufreq/cpuinfo_max_freq") for core in cores]
    if None not in clocks and len(set(clocks)) > 1:
        return sum(clock != min(filter(None, clocks)) for clock in clocks)
    return max(1, (len(cores) or usable_cores()) // 2)


def pin_threads(cores: Collection[int]) -> None:
    """Lets all threads of this process, and those that they will start, run on `cores` alone.

    Raises:
        OSError: the system does not allow it, or allows only a part of them.
    """
    for task in _TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue  # it has ended
    if set(allowed_cores()) != set(cores):
        raise PermissionError("the system gave other cores than were asked for")


def _highest_khz(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
