"""The coarse stage of Algorithm 2 by itself: what is largest within a budget, with nothing trained or evaluated."""

from __future__ import annotations

import numpy as np

from search.algorithms.feasible.candidates import Candidates
from search.algorithms.pricing.price import Prices
from search.algorithms.record.coarse_result import CoarseResult, Sized
from search.algorithms.record.result import Coarse
from search.algorithms.record.settings import Budget
from search.spaces import Space


def largest_within(
    space: Space, prices: Prices, budget: Budget, count: int, draws: int = 10_000, seed: int = 0
) -> CoarseResult:
    """The `count` networks within a budget with the most conv+linear MACs, then parameters; of equals the fastest.

    Args:
        space: May be a part of a registered one.
        prices: A LUT or its latency model, or several whose budgets must all hold.
        budget: What a network may cost.
        count: K of Algorithm 2.
        draws: Candidates drawn from within the budget; all of them, where there are no more.
        seed: Of the draws.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
    """
    candidates = Candidates(space, prices, budget, draws, np.random.default_rng(seed))
    compiled, pool = candidates.compiled, candidates.pool
    batch = compiled.price(pool)
    order = np.lexsort((*pool.T[::-1], batch.latency_ms[0], -batch.params, -batch.macs))[:count]
    networks = []
    for row, arch in zip(order, compiled.decode(pool[order]), strict=True):
        cost = batch[int(row)]
        networks.append(
            Sized(
                arch=arch.to_json(),
                macs=cost.macs,
                params=cost.params,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                further_latency_ms=tuple(latency.ms for latency in cost.further),
                further_latency_high_ms=tuple(latency.high_ms for latency in cost.further),
                memory_bytes=cost.memory_bytes,
            )
        )
    return CoarseResult(
        space=space.name,
        space_digest=space.digest,
        price=compiled.fingerprint,
        budget=budget,
        count=count,
        draws=draws,
        seed=seed,
        coarse=Coarse(
            priced=candidates.priced,
            feasible=len(pool),
            feasible_share=min(1.0, candidates.share),
            skeletons=0,
            smallest_ms=candidates.smallest_ms,
        ),
        whole=candidates.whole,
        networks=tuple(networks),
    )
