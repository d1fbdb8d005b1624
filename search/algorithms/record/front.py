"""Which of a search's architectures no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luts.format.numbers import Floats
from search.algorithms.record.result import Evaluated
from search.algorithms.record.settings import Criterion
from search.algorithms.record.skyline import skyline


def front(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> tuple[Evaluated, ...]:
    """Those that no other beats in all criteria; best in the first one first."""
    return tuple(evaluated[row] for row in skyline(criterion_costs(evaluated, criteria)))


def criterion_costs(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> Floats:
    """(N, criteria), all wanted small."""
    columns = {
        "accuracy": lambda row: -row.accuracy,
        "latency": lambda row: row.latency_ms,
        "params": lambda row: row.params,
        "macs": lambda row: row.macs,
        "memory": lambda row: row.memory_bytes,
    }
    return np.array([[columns[name](row) for name in criteria] for row in evaluated], dtype=np.float64)
