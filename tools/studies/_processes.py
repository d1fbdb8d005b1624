"""Work of a study on several things at once, in processes of one core each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from luts.format.processes import end_with_parent
from tools.studies._options import Options

Thing = TypeVar("Thing")
Found = TypeVar("Found")


def side_by_side(
    work: Callable[[Thing, str, int], Found], things: Sequence[Thing], options: Options
) -> list[Found]:
    """`work(thing, on, number)` of everything, in `--jobs` processes; with GPUs they take turns, by number.

    Where there is one job or one thing it has this process, and all cores.
    """
    if options.jobs == 1 or len(things) == 1:
        return [work(thing, options.on, 0) for thing in things]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn"), _begin) as pool:
        asked = [pool.submit(work, thing, options.on, number) for number, thing in enumerate(things)]
        return [each.result() for each in asked]


def _begin() -> None:
    """A worker has one core, and leaves no training behind that nobody waits for."""
    torch.set_num_threads(1)
    end_with_parent()
