"""Minima that do not depend on the last digits of a cost."""

from __future__ import annotations

from collections.abc import Callable

from luts.format.numbers import Floats

_STEPS = (1.0, 0.5, 0.25, 0.125, 0.0625)


def lattice_minimum(cost: Callable[[Floats], float], start: Floats) -> Floats:
    """Pattern search (Hooke and Jeeves 1961) whose points all lie on one lattice of binary fractions.

    So the last digits of `cost`, which differ between machines, decide nothing: `bench lut verify` elsewhere
    finds the same point, not one nearby. For logarithms the finest step, 6 %, is far below what any data tell.
    """
    point, best = start, cost(start)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for axis in range(len(start)):
                for sign in (1.0, -1.0):
                    candidate = point.copy()
                    candidate[axis] += sign * step
                    value = cost(candidate)
                    if value < best:
                        point, best, improved = candidate, value, True
    return point
