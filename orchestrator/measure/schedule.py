"""In which company and order models are measured: drawn from a seed, so that it can be recorded and repeated."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable


def pass_groups(models: Iterable[str], seed: int, pass_index: int, batch_models: int) -> list[list[str]]:
    """A pass's batches: other company in every pass, sizes as equal as can be."""
    shuffled = list(models)
    random.Random(f"{seed}:pass:{pass_index}").shuffle(shuffled)
    count = max(1, math.ceil(len(shuffled) / batch_models))
    return [shuffled[start::count] for start in range(count)]


def load_order(slots: int, seed: int, batch: int, segment: int) -> list[int]:
    """The slots of a batch in the order of their loads."""
    loading = list(range(slots))
    random.Random(f"{seed}:{batch}:{segment}").shuffle(loading)
    return loading


def round_orders(
    slots: int, seed: int, batch: int, first_round: int, rounds: int, settle_runs: int
) -> list[list[int]]:
    """Visits of some rounds of a batch, each slot `settle_runs + 1` times in a row.

    A round is the same for the same batch, however often that was cut off.
    """
    orders = []
    for number in range(first_round, first_round + rounds):
        visited = list(range(slots))
        random.Random(f"{seed}:{batch}:round:{number}").shuffle(visited)
        orders.append([slot for slot in visited for _ in range(settle_runs + 1)])
    return orders
