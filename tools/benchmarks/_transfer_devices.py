"""Trials of transfer on phones' public tables and on five made-up devices that differ as phones do."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence

import numpy as np

from luts.estimate.sources import SourceEntries
from luts.format.schema import Floats, KeyFeatures
from orchestrator.plan.plan import features_of
from orchestrator.simulate.device import GroundTruth, TrueCosts
from search.blocks import boundary_bytes, parse_keys
from search.spaces import get_space
from tools.benchmarks._phones import features_of_keys
from tools.benchmarks._transfer_trial import COUNTS, Networks, Trial, chosen_order, lut_of, measured

KEYS = 300
"""Blocks of a table that one draw's networks are made of, as many as a space has; each draw takes others."""
BLOCKS = (20, 40)
HELDOUT = 100
CANDIDATES = 600
SPACE = "autovit-xxs"
LUT_NETWORKS, LUT_SEED = 60, 1000
"""Of the LUTs that made-up devices learn from."""

_ALIKE = TrueCosts(deviation_sd=0.12, own_sd=0.05, pair_sd=0.02, base_ms=0.05, transfer_ms_per_mib=0.02)
DEVICES: Mapping[str, TrueCosts] = {
    "flagship": _ALIKE.model_copy(
        update={
            "own_seed": 1,
            "ms_per_mmac": 0.010,
            "ms_per_mib": 0.03,
            "constant_ms": 0.012,
            "depthwise": 2.0,
        }
    ),
    "mid-range": _ALIKE.model_copy(
        update={
            "own_seed": 2,
            "ms_per_mmac": 0.022,
            "ms_per_mib": 0.06,
            "constant_ms": 0.03,
            "depthwise": 2.5,
        }
    ),
    "small cache": _ALIKE.model_copy(
        update={
            "own_seed": 3,
            "ms_per_mmac": 0.018,
            "ms_per_mib": 0.10,
            "depthwise": 2.0,
            "cache_mib": 0.5,
            "spill_ms_per_mib": 0.15,
        }
    ),
    "wide vectors": _ALIKE.model_copy(
        update={
            "own_seed": 4,
            "ms_per_mmac": 0.006,
            "ms_per_mib": 0.05,
            "constant_ms": 0.02,
            "depthwise": 6.0,
        }
    ),
    "little cores": _ALIKE.model_copy(
        update={
            "own_seed": 5,
            "ms_per_mmac": 0.075,
            "ms_per_mib": 0.12,
            "constant_ms": 0.11,
            "depthwise": 1.5,
        }
    ),
}
"""Coefficients as phones' differ: cache, vector width, memory, little cores. A twentieth of each block is the
device's own; what else it strays from physics, like blocks of all devices share; neighbours make 2 %."""


def phone_trial(
    tables: Mapping[str, Mapping[str, float]], phone: str, seed: int, *, chosen: bool, shuffled: str = "no"
) -> Trial:
    """Networks of random blocks of a phone, from the other phones' entries.

    Args:
        tables: Milliseconds by key, by phone.
        phone: Whose entries are to be learned.
        seed: Of blocks, networks and noise.
        chosen: Whether the networks to fit are chosen, or the first of the random ones.
        shuffled: `no`; `only`: the one source's entries are those of other blocks; `too`: such a source more.
    """
    generator = np.random.default_rng(seed)
    keys = sorted(generator.choice(sorted(tables[phone]), KEYS, replace=False).tolist())
    networks = _of_random_blocks(generator, keys, tables[phone], CANDIDATES + HELDOUT)
    sources = [
        SourceEntries(name, {key: table[key] for key in keys})
        for name, table in tables.items()
        if name != phone
    ]
    features, known = features_of_keys(keys), with_shuffled(sources, shuffled, seed)
    return _trial(features, known, networks, tables[phone], seed, chosen)


def simulated_trial(device: str, seed: int, *, chosen: bool, shuffled: str = "no") -> Trial:
    """Networks of `SPACE` on a made-up device, from LUTs of the other four that are from scratch themselves."""
    features = _features()
    sources = [_lut(name, seed) for name in DEVICES if name != device]
    entry_ms = {key: _truth(device).entry_ms(key) for key in features}
    networks = _networks(device, seed)
    return _trial(features, with_shuffled(sources, shuffled, seed), networks, entry_ms, seed, chosen)


@functools.cache
def _features() -> Mapping[str, KeyFeatures]:
    space = get_space(SPACE)
    return features_of(space.block_specs((space.default_resolution,)))


@functools.cache
def _lut(device: str, seed: int) -> SourceEntries:
    """Of other networks than those that the others are judged by."""
    networks = _networks(device, LUT_SEED + seed).first(range(LUT_NETWORKS))
    return lut_of(device, _features(), measured(networks, LUT_SEED + seed))


@functools.cache
def _archs(seed: int) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Blocks of networks of the space, and what they hand on."""
    space, rng = get_space(SPACE), random.Random(f"transfer:{seed}")
    count = CANDIDATES + HELDOUT
    drawn = dict.fromkeys(space.sample(rng, (space.default_resolution,)) for _ in range(count + count // 10))
    blocks = [tuple(arch.keys()) for arch in drawn][:count]
    return tuple((keys, boundary_bytes(parse_keys(keys))) for keys in blocks)


@functools.cache
def _networks(device: str, seed: int) -> Networks:
    blocks, handed = zip(*_archs(seed), strict=True)
    return Networks(blocks, handed, np.array([_truth(device).latency_ms(keys) for keys in blocks]))


@functools.cache
def _truth(device: str) -> GroundTruth:
    return GroundTruth(DEVICES[device])


def with_shuffled(sources: Sequence[SourceEntries], shuffled: str, seed: int) -> list[SourceEntries]:
    """The sources, or beside them or in their place the first one with its entries under others' keys."""
    if shuffled == "no":
        return list(sources)
    first = sources[0]
    keys = list(first.entry_ms)
    random.Random(seed).shuffle(keys)
    values = [first.entry_ms[key] for key in keys]
    se = (
        dict(zip(first.entry_ms, (first.entry_se[key] for key in keys), strict=True))
        if first.entry_se
        else {}
    )
    wrong = SourceEntries(
        "shuffled", dict(zip(first.entry_ms, values, strict=True)), first.base_ms, entry_se=se
    )
    return [wrong] if shuffled == "only" else [*sources, wrong]


def _of_random_blocks(
    generator: np.random.Generator, keys: Sequence[str], entry_ms: Mapping[str, float], count: int
) -> Networks:
    blocks = [
        tuple(
            keys[place]
            for place in generator.integers(0, len(keys), generator.integers(*BLOCKS, endpoint=True))
        )
        for _ in range(count)
    ]
    ms: Floats = np.array([sum(entry_ms[key] for key in network) for network in blocks])
    return Networks(tuple(blocks), (0,) * count, ms)


def _trial(
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries],
    networks: Networks,
    entry_ms: Mapping[str, float],
    seed: int,
    chosen: bool,
) -> Trial:
    candidates = measured(networks.first(range(CANDIDATES)), seed)
    heldout = networks.first(range(CANDIDATES, CANDIDATES + HELDOUT))
    most = max(COUNTS)
    order = chosen_order(features, sources, candidates, most) if chosen else range(most)
    fitted = candidates.first(order)
    return Trial(features, tuple(sources), fitted, measured(heldout, seed + 1), heldout.ms, entry_ms)
