"""A new device from few networks and the LUTs of other devices, against a LUT from scratch and one factor.

No device runs anything here. Each device in turn is left out and learned from n networks, measured with noise, and
the entries of the others: phones of public tables (nn-Meter), and simulated devices that differ as phones do.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from luts.estimate.sources import SourceEntries
from luts.format.provenance import ROOT
from luts.format.schema import KeyFeatures
from luts.published import features_of_key
from orchestrator.agent.device import usable_cores
from orchestrator.plan.plan import features_of
from orchestrator.simulate.device import GroundTruth, TrueCosts
from search.blocks import boundary_bytes, parse_keys
from search.spaces import get_space
from tools.benchmarks.transfer_trial import (
    COUNTS,
    METHODS,
    Networks,
    Score,
    Trial,
    chosen_order,
    lut_of,
    measured,
    score,
    score_row,
)
from tools.tables import Tables, log

PHONE_TABLES = ROOT.parent / "shared" / "data" / "phone-luts"
"""nn-Meter's tables of three phones (branch dev/hybrid-transformer, MIT): 12,116 blocks without intervals."""
DRAWS = 4
SHUFFLED_COUNTS = (3, 5, 10)
KEYS = 300
"""Blocks of a table that the networks of one draw are made of, as many as a space has."""
BLOCKS = (20, 40)
"""Fewest and most blocks of a network of a phone."""
CANDIDATES, HELDOUT = 600, 100
SPACE = "autovit-xxs"
LUT_NETWORKS, LUT_SEED = 60, 1000
"""Networks of the LUTs that simulated devices learn from, and the seed of their draw."""

_COMMON = TrueCosts(deviation_sd=0.12, own_sd=0.05, pair_sd=0.02, base_ms=0.05, transfer_ms_per_mib=0.02)
_DIFFERENCES: Mapping[str, Mapping[str, float]] = {
    "flagship": {"ms_per_mmac": 0.010, "ms_per_mib": 0.03, "constant_ms": 0.012, "depthwise": 2.0},
    "mid-range": {"ms_per_mmac": 0.022, "ms_per_mib": 0.06, "constant_ms": 0.03, "depthwise": 2.5},
    "small cache": {
        "ms_per_mmac": 0.018,
        "ms_per_mib": 0.10,
        "depthwise": 2.0,
        "cache_mib": 0.5,
        "spill_ms_per_mib": 0.15,
    },
    "wide vectors": {"ms_per_mmac": 0.006, "ms_per_mib": 0.05, "constant_ms": 0.02, "depthwise": 6.0},
    "little cores": {"ms_per_mmac": 0.075, "ms_per_mib": 0.12, "constant_ms": 0.11, "depthwise": 1.5},
}
DEVICES: Mapping[str, TrueCosts] = {
    name: _COMMON.model_copy(update={"own_seed": seed, **values})
    for seed, (name, values) in enumerate(_DIFFERENCES.items(), 1)
}
"""Simulated devices whose coefficients differ as phones' do: cache, vector width, memory, little cores."""

Make = Callable[..., Trial]


def main(draws: int = DRAWS) -> Tables:
    """Leave one device out, over phones and simulated devices; means over draws, in percent.

    MAPE is of the held-out networks' true latencies; `coverage` counts measurements inside the 95 % intervals,
    `entries` the true entries. `chosen` networks are those that `bench profile --from` would choose.
    """
    phones = {
        path.stem.removeprefix("lut_"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(PHONE_TABLES.glob("lut_*.json"))
    }
    kinds: dict[str, dict[str, Make]] = {
        "simulated devices": {name: functools.partial(simulated_trial, name) for name in DEVICES}
    }
    if phones:
        kinds["phones"] = {name: functools.partial(phone_trial, phones, name) for name in phones}
    else:
        log(f"phones are skipped: no tables in {PHONE_TABLES}")
    tables = {}
    for kind, makes in kinds.items():
        tables[f"Transfer to {kind}"] = _rows(
            _scored, makes, draws, ("device", "networks", "method", "learned")
        )
        columns = ("device", "shuffled source", "method", "learned")
        tables[f"With a shuffled source, {kind}"] = _rows(_scored_shuffled, makes, draws, columns)
    return tables


def _rows(
    scored: Callable[[Make, int], list[Any]], makes: Mapping[str, Make], draws: int, columns: Sequence[str]
) -> list[dict[str, object]]:
    """Compute all draws in parallel, one thread each (more are ten times as slow with so small matrices)."""
    with ProcessPoolExecutor(usable_cores(), initializer=threadpool_limits, initargs=(1,)) as pool:
        futures = [
            (device, pool.submit(scored, make, seed))
            for device, make in makes.items()
            for seed in range(draws)
        ]
        scores: dict[tuple[object, ...], list[Score]] = {}
        for device, future in futures:
            for key, one in future.result():
                scores.setdefault((device, *key), []).append(one)
    return [dict(zip(columns, key, strict=True)) | score_row(found) for key, found in scores.items()]


def _scored(make: Make, seed: int) -> list[tuple[tuple[str, str, int], Score]]:
    found = []
    for how in ("random", "chosen"):
        trial = make(seed, chosen=how == "chosen")
        for method, count in itertools.product(METHODS, COUNTS):
            if (one := score(trial, method, count)) is not None:
                found.append(((how, method, count), one))
    return found


def _scored_shuffled(make: Make, seed: int) -> list[tuple[tuple[str, str, int], Score]]:
    found = []
    for shuffled in ("only", "additional"):
        trial = make(seed, chosen=False, shuffled=shuffled)
        for method, count in itertools.product(("scratch", "transfer"), SHUFFLED_COUNTS):
            if (one := score(trial, method, count)) is not None:
                found.append(((shuffled, method, count), one))
    return found


def phone_trial(
    tables: Mapping[str, Mapping[str, float]], phone: str, seed: int, *, chosen: bool, shuffled: str = "no"
) -> Trial:
    """Return a trial on networks of random blocks of a phone, from the other phones' entries.

    Args:
        tables: Milliseconds by key, by phone.
        phone: The phone to be learned.
        seed: Seed of blocks, networks and noise.
        chosen: Whether the networks to learn from are chosen, or the first of the random ones.
        shuffled: `no`; `only`: the only source has the entries of other blocks; `additional`: one more source has.
    """
    generator = np.random.default_rng(seed)
    keys = sorted(generator.choice(sorted(tables[phone]), KEYS, replace=False).tolist())
    blocks = [
        tuple(keys[i] for i in generator.integers(0, KEYS, generator.integers(*BLOCKS, endpoint=True)))
        for _ in range(CANDIDATES + HELDOUT)
    ]
    ms = np.array([sum(tables[phone][key] for key in network) for network in blocks])
    networks = Networks(tuple(blocks), (0,) * len(blocks), ms)
    sources = [
        SourceEntries(name, {key: table[key] for key in keys})
        for name, table in tables.items()
        if name != phone
    ]
    features = {key: features_of_key(key) for key in keys}
    return _trial(features, with_shuffled(sources, shuffled, seed), networks, tables[phone], seed, chosen)


def simulated_trial(device: str, seed: int, *, chosen: bool, shuffled: str = "no") -> Trial:
    """Return a trial on networks of `SPACE` on a simulated device, from LUTs from scratch of the other four."""
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
    """Return a LUT of other networks than those of the trials."""
    networks = _networks(device, LUT_SEED + seed).first(range(LUT_NETWORKS))
    return lut_of(device, _features(), measured(networks, LUT_SEED + seed))


@functools.cache
def _networks(device: str, seed: int) -> Networks:
    blocks, handed = zip(*_archs(seed), strict=True)
    return Networks(blocks, handed, np.array([_truth(device).latency_ms(keys) for keys in blocks]))


@functools.cache
def _archs(seed: int) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return blocks of networks of the space, and the bytes between them."""
    space, rng = get_space(SPACE), random.Random(f"transfer:{seed}")
    count = CANDIDATES + HELDOUT
    drawn = dict.fromkeys(space.sample(rng, (space.default_resolution,)) for _ in range(count + count // 10))
    blocks = [tuple(arch.keys()) for arch in drawn][:count]
    return tuple((keys, boundary_bytes(parse_keys(keys))) for keys in blocks)


@functools.cache
def _truth(device: str) -> GroundTruth:
    return GroundTruth(DEVICES[device])


def with_shuffled(sources: Sequence[SourceEntries], shuffled: str, seed: int) -> list[SourceEntries]:
    """Return the sources with, or replaced by, the first one with its entries assigned to other keys."""
    if shuffled == "no":
        return list(sources)
    first = sources[0]
    keys = list(first.entry_ms)
    random.Random(seed).shuffle(keys)
    ms = dict(zip(first.entry_ms, (first.entry_ms[key] for key in keys), strict=True))
    se = (
        dict(zip(first.entry_ms, (first.entry_se[key] for key in keys), strict=True))
        if first.entry_se
        else {}
    )
    wrong = SourceEntries("shuffled", ms, first.base_ms, entry_se=se)
    return [wrong] if shuffled == "only" else [*sources, wrong]


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
