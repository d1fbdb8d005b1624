"""True latencies of a made-up device: what an estimate should find, known exactly. Pure and seeded.

    L(m) = base + sum of entries + transfer * bytes handed on + context
    entry = (constant + a * MACs + b * bytes moved) * exp(deviation_sd * z_key)

The first three terms are the additive part, which is the model that LUTs fit; `context` is what they can't hold.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field

from luts.estimate.physics import physics_ms
from luts.format.numbers import MIB
from luts.format.schema import Coefficients
from luts.format.values import Ms, Value
from orchestrator.plan.features import features_of
from search.blocks import BlockSpec, boundary_bytes, parse_key, parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT

Share = Annotated[float, Field(ge=0, le=1)]


class Costs(Value):
    """Parameters of the truth; latencies on one thread.

    The defaults make random networks of `autovit-xxs` take 12 to 35 ms, as on one core of a two-core host:
    50 GMAC/s, 20 GiB/s of activations and weights, 30 us a block.

    Attributes:
        seed: Of all that is drawn: deviations of blocks and of pairs of blocks.
        base_ms: Of a call without any block.
        transfer_ms_per_mib: Of data handed from block to block.
        constant_ms, ms_per_mmac, ms_per_mib: Physics of a block: launch, MACs, bytes moved, as the joint fit counts
            them (weights twice).
        depthwise: What a MAC of a depthwise convolution costs, in others: wide vectors help it less.
        deviation_sd: How far blocks stray from physics (log).
        own_seed, own_sd: The same of one device: those of equal `seed` and other `own_seed` are alike but for it.
        pair_sd: Context: a block costs this much more or less (relative, standard deviation) by what stands right
            before it: layouts that fit, kernels that share packed data.
        cache_mib, spill_ms_per_mib: Context: what a block is handed is fetched from memory again as far as it
            and the block before together do not fit into the cache.
        serial_share: Of a block's work that further threads do not share (Amdahl).
    """

    seed: int = 0
    base_ms: Ms = 0.1
    transfer_ms_per_mib: Ms = 0.05
    constant_ms: Ms = 0.03
    ms_per_mmac: Ms = 0.02
    ms_per_mib: Ms = 0.05
    depthwise: Annotated[float, Field(gt=0, le=100)] = 1.0
    deviation_sd: Share = 0.15
    own_seed: int = 0
    own_sd: Share = 0.0
    pair_sd: Share = 0.0
    cache_mib: Annotated[float, Field(gt=0, le=1024)] = 2.0
    spill_ms_per_mib: Ms = 0.0
    serial_share: Share = 0.1

    def additive(self) -> Costs:
        """The same without context effects."""
        return self.model_copy(update={"pair_sd": 0.0, "spill_ms_per_mib": 0.0})


class Truth:
    """The latency of every network of known blocks, on `threads` threads.

    Blocks are given by key in order of execution; UsageError where a key is not one.
    """

    def __init__(self, costs: Costs, threads: int = 1) -> None:
        self.costs = costs
        self._scale = costs.serial_share + (1.0 - costs.serial_share) / threads
        self._entries: dict[str, float] = {}

    @property
    def base_ms(self) -> float:
        """Of a call without any block."""
        return self.costs.base_ms

    def entry_ms(self, key: str) -> float:
        """A block's own cost, whatever stands around it."""
        if key not in self._entries:
            self._entries[key] = self._scale * self._entry_ms(key)
        return self._entries[key]

    def additive_ms(self, blocks: Sequence[str]) -> float:
        """Latency as far as blocks add up: base, entries and data handed on."""
        moved_ms = self.costs.transfer_ms_per_mib * boundary_bytes(parse_keys(blocks)) / MIB
        return self.base_ms + sum(map(self.entry_ms, blocks)) + moved_ms

    def context_ms(self, blocks: Sequence[str]) -> float:
        """What neighbours do to each other, above or below the additive part."""
        costs, total_ms = self.costs, 0.0
        for before, block in pairwise(parse_keys(blocks)):
            if costs.pair_sd:
                z = _normal(f"{costs.seed}:{before.key}:{block.key}")
                total_ms += costs.pair_sd * z * self.entry_ms(block.key)
            if costs.spill_ms_per_mib:
                total_ms += self._scale * costs.spill_ms_per_mib * self._spilled_mib(before, block)
        return total_ms

    def latency_ms(self, blocks: Sequence[str]) -> float:
        """Quiet latency of the network."""
        return self.additive_ms(blocks) + self.context_ms(blocks)

    def _entry_ms(self, key: str) -> float:
        costs, block = self.costs, parse_key(key)
        price = Coefficients(
            constant_ms=costs.constant_ms,
            ms_per_mmac=costs.ms_per_mmac,
            ms_per_depthwise_mmac=costs.depthwise * costs.ms_per_mmac,
            ms_per_mib=costs.ms_per_mib,
        )
        feature = features_of([block])[key]
        deviation = costs.deviation_sd * _normal(f"{costs.seed}:{key}")
        if costs.own_sd:
            deviation += costs.own_sd * _normal(f"own:{costs.own_seed}:{key}")
        return physics_ms(feature, price) * math.exp(deviation)

    def _spilled_mib(self, before: BlockSpec, block: BlockSpec) -> float:
        live_mib = (before.live_elements() + block.live_elements()) * BYTES_PER_ELEMENT / MIB
        return min(handed_mib(before.key), max(0.0, live_mib - self.costs.cache_mib))


def handed_mib(key: str) -> float:
    """What a block hands to the next one."""
    block = parse_key(key)
    return boundary_bytes((block, block)) / MIB


@functools.lru_cache(maxsize=1 << 16)
def _normal(label: str) -> float:
    """A standard normal number of that label: always the same, independent of those of other labels."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "big")
    return float(np.random.default_rng(seed).standard_normal())
