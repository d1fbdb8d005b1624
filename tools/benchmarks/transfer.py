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
from dataclasses import dataclass, field, replace

import numpy as np

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.joint import fit_entries
from luts.estimate.likelihood import FitData
from luts.estimate.sources import SourceEntries
from luts.estimate.statistics import mape, predictive_quantile
from luts.format.provenance import ROOT
from luts.format.schema import Floats, KeyFeatures
from orchestrator.agent.device import usable_cores
from orchestrator.plan.build import NETWORKS_PER_STEP, SEED_NETWORKS, choose_design
from orchestrator.plan.plan import features_of
from orchestrator.simulate.device import GroundTruth, TrueCosts
from search.blocks import boundary_bytes, parse_keys
from search.spaces import get_space
from tools.benchmarks.shared import entries_of, predicted_ms
from tools.tables import Tables, log, run_parallel

NOISE = 0.006
COUNTS = (0, 3, 5, 10, 20)
METHODS = ("scratch", "one factor", "transfer")
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
TRUTHS: Mapping[str, GroundTruth] = {
    name: GroundTruth(_COMMON.model_copy(update={"own_seed": seed, **values}))
    for seed, (name, values) in enumerate(_DIFFERENCES.items(), 1)
}
"""Simulated devices whose coefficients differ as phones' do: cache, vector width, memory, little cores."""


@dataclass(frozen=True)
class Trial:
    """Measured networks to learn from and to evaluate on.

    Attributes:
        features: Features of all keys.
        sources: Entries of other devices.
        fitted: Networks to learn from, as measured.
        heldout: Networks to evaluate on, as measured.
        heldout_true_ms: Their latencies without noise.
        entry_ms: True entries.
    """

    features: Mapping[str, KeyFeatures]
    sources: tuple[SourceEntries, ...]
    fitted: FitData
    heldout: FitData
    heldout_true_ms: Floats
    entry_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Errors on the held-out networks.

    Attributes:
        mape: Mean absolute relative error.
        coverage: Fraction of measured networks inside their 95 % interval; None without intervals.
        dropped: Sources that the fit rejected.
        entries: Fraction of true entries inside their 95 % interval.
    """

    mape: float
    coverage: float | None
    dropped: tuple[str, ...] = ()
    entries: float | None = None


def networks_of(blocks: Sequence[tuple[str, ...]], handed: Sequence[int], ms: Floats) -> FitData:
    """Return networks measured with the benchmark's noise: blocks, bytes between blocks, milliseconds."""
    return FitData(ms, NOISE**2 * np.eye(len(ms)), tuple(blocks), np.array(handed, dtype=np.float64))


def first(networks: FitData, rows: Sequence[int]) -> FitData:
    """Return the networks at these positions."""
    kept = list(rows)
    blocks = [networks.blocks[row] for row in kept]
    return networks_of(blocks, networks.boundary_bytes[kept].tolist(), networks.ms[kept])


def measured(networks: FitData, seed: int) -> FitData:
    """Return the networks with the noise of a measurement."""
    noise = np.random.default_rng(seed).normal(0.0, NOISE, len(networks.ms))
    return replace(networks, ms=networks.ms * np.exp(noise))


def chosen_order(
    features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], candidates: FitData, count: int
) -> list[int]:
    """Return candidates in the order in which `bench profile --from` would measure them.

    The first ones are the most informative under the sources' prior, the following ones, a few at a time, under the
    prior of the sources that fit those before.
    """
    order, kept = list[int](), tuple(sources)
    while len(order) < count:
        if order:
            kept = fit_entries(first(candidates, order), features, sources).sources
        left = [place for place in range(len(candidates.blocks)) if place not in order]
        more = choose_design(
            features,
            replace(TYPICAL_DEVICE, sources=kept),
            measured=[candidates.blocks[place] for place in order],
            candidates=[candidates.blocks[place] for place in left],
            count=min(NETWORKS_PER_STEP if order else 1 + SEED_NETWORKS, count - len(order)),
        )
        order += [left[place] for place in more]
    return order


def score(trial: Trial, method: str, count: int) -> Score | None:
    """Return a method's errors after the first `count` networks; None where it cannot predict yet."""
    known, networks = first(trial.fitted, range(count)), trial.heldout
    if method == "one factor" or (count == 0 and method == "transfer"):
        return one_factor(trial.sources, known, networks, trial.heldout_true_ms)
    if count == 0:
        return None
    fit = fit_entries(known, trial.features, trial.sources if method == "transfer" else ())
    predicted = predicted_ms(entries_of(method, fit), networks)
    se = np.hypot(fit.relative_se(networks.blocks, networks.boundary_bytes.tolist()), NOISE)
    inside = np.abs(networks.ms / predicted - 1) <= predictive_quantile(fit.left_out) * se
    true = np.array([trial.entry_ms[key] for key in fit.keys])
    entries = float((np.abs(true - fit.ms) <= fit.reach * fit.se).mean())
    error = mape(trial.heldout_true_ms.tolist(), predicted.tolist())
    return Score(error, float(inside.mean()), tuple(fit.dropped), entries)


def one_factor(sources: Sequence[SourceEntries], known: FitData, heldout: FitData, true_ms: Floats) -> Score:
    """Return the errors of the source that fits best, times one factor; the mean of all sources for no network."""
    errors = []
    for source in sources:
        fitted, predicted = predicted_ms(source, known), predicted_ms(source, heldout)
        factor = float((known.ms / fitted).mean()) if len(fitted) else 1.0
        misfit = float(np.abs(known.ms / (factor * fitted) - 1).mean()) if len(fitted) else 0.0
        errors.append((misfit, mape(true_ms.tolist(), (factor * predicted).tolist())))
    if not len(known.ms):
        return Score(float(np.mean([error for _, error in errors])), None)
    return Score(min(errors)[1], None)


def score_row(scores: Sequence[Score]) -> dict[str, object]:
    """Return the means over draws in percent, and how often a shuffled source was rejected."""
    row: dict[str, object] = {"MAPE": 100 * float(np.mean([one.mape for one in scores]))}
    for name in ("coverage", "entries"):
        values = [value for one in scores if (value := getattr(one, name)) is not None]
        row[name] = 100 * float(np.mean(values)) if values else None
    return row | {"rejected": 100 * float(np.mean(["shuffled" in one.dropped for one in scores]))}


Make = Callable[..., Trial]
"""Makes a trial of a seed, `chosen` or not, with or without a shuffled source."""


def main(draws: int = DRAWS) -> Tables:
    """Leave one device out, over phones and simulated devices; means over draws, in percent.

    MAPE is of the held-out networks' true latencies; `coverage` counts measurements inside the 95 % intervals,
    `entries` the true entries. Networks are those that `bench profile --from` would choose.
    """
    phones = {
        path.stem.removeprefix("lut_"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(PHONE_TABLES.glob("lut_*.json"))
    }
    kinds: dict[str, dict[str, Make]] = {
        "simulated devices": {name: functools.partial(simulated_trial, name) for name in TRUTHS}
    }
    if phones:
        kinds["phones"] = {name: functools.partial(phone_trial, phones, name) for name in phones}
    else:
        log(f"phones are skipped: no tables in {PHONE_TABLES}")
    tables = {}
    for kind, makes in kinds.items():
        tables[f"Transfer to {kind}"] = _rows(_scored, makes, draws, ("device", "method", "learned"))
        columns = ("device", "shuffled source", "method", "learned")
        tables[f"With a shuffled source, {kind}"] = _rows(_scored_shuffled, makes, draws, columns)
    return tables


Scores = list[tuple[tuple[object, ...], Score]]


def _rows(
    scored: Callable[[tuple[Make, int]], Scores],
    makes: Mapping[str, Make],
    draws: int,
    columns: Sequence[str],
) -> list[dict[str, object]]:
    """Compute all draws in parallel, one thread each (more are ten times as slow with so small matrices)."""
    tasks = list(itertools.product(makes, range(draws)))
    found = run_parallel(scored, [(makes[device], seed) for device, seed in tasks], usable_cores())
    scores: dict[tuple[object, ...], list[Score]] = {}
    for (device, _), of_draw in zip(tasks, found, strict=True):
        for key, one in of_draw:
            scores.setdefault((device, *key), []).append(one)
    return [dict(zip(columns, key, strict=True)) | score_row(each) for key, each in scores.items()]


def _scored(task: tuple[Make, int]) -> Scores:
    make, seed = task
    trial = make(seed, chosen=True)
    every = itertools.product(METHODS, COUNTS)
    return [(key, one) for key in every if (one := score(trial, *key)) is not None]


def _scored_shuffled(task: tuple[Make, int]) -> Scores:
    make, seed = task
    found: Scores = []
    for shuffled in ("only", "additional"):
        trial = make(seed, chosen=False, shuffled=shuffled)
        for key in itertools.product(("scratch", "transfer"), SHUFFLED_COUNTS):
            one = score(trial, *key)
            assert one is not None
            found.append(((shuffled, *key), one))
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
    networks = networks_of(blocks, (0,) * len(blocks), ms)
    sources = [
        SourceEntries(name, {key: table[key] for key in keys})
        for name, table in tables.items()
        if name != phone
    ]
    features = {key: phone_features(key) for key in keys}
    return _trial(features, with_shuffled(sources, shuffled, seed), networks, tables[phone], seed, chosen)


def simulated_trial(device: str, seed: int, *, chosen: bool, shuffled: str = "no") -> Trial:
    """Return a trial on networks of `SPACE` on a simulated device, from LUTs from scratch of the other four."""
    features = _features()
    sources = [_lut(name, seed) for name in TRUTHS if name != device]
    entry_ms = {key: TRUTHS[device].entry_ms(key) for key in features}
    networks = _networks(device, seed)
    return _trial(features, with_shuffled(sources, shuffled, seed), networks, entry_ms, seed, chosen)


def phone_features(key: str) -> KeyFeatures:
    """Return kind, MACs, traffic and parameters of a block of nn-Meter's tables by its key.

    Simpler than `luts.published.features_of_key`, which counts norms, biases and residuals too: the documented
    figures of this benchmark were computed with these features.
    """
    kind, *fields = key.split("_")
    numbers = [int(field) for field in fields if field.isdigit()]
    if kind == "conv":
        side, inputs, outputs, expansion, stride, kernel = numbers
        gated = fields[-1] == "se"
        return _mbconv_features(kind, side, (inputs, outputs), expansion, stride, kernel, gated=gated)
    if kind == "transds":
        side, inputs, outputs, stride, expansion = numbers
        return _mbconv_features(kind, side, (inputs, outputs), expansion, stride, 3, gated=False)
    if kind == "firstconv":
        side, inputs, outputs, stride, kernel = numbers
        places, params = (side // stride) ** 2, inputs * outputs * kernel**2
        macs, elements = places * params, side**2 * inputs + places * outputs
    elif kind == "transattn":
        side, width, ratio = numbers
        tokens, params = side**2, width * width * (2 + 2 * ratio)
        macs = tokens * params + tokens**2 * width * (1 + ratio)
        elements = tokens * width * (4 + 2 * ratio) + 2 * tokens**2 * (width // 16)
    elif kind == "transffn":
        side, width, ratio = numbers
        params = 2 * width * width * ratio
        macs, elements = side**2 * params, side**2 * 2 * width * (1 + ratio)
    else:
        side, inputs, outputs, expansion = numbers
        wide = inputs * expansion
        params = inputs * wide + wide * outputs
        macs, elements = side**2 * inputs * wide + wide * outputs, side**2 * (inputs + wide) + wide + outputs
    return KeyFeatures(kind=kind, macs=macs, traffic_bytes=4 * elements, params=params)


def _mbconv_features(
    kind: str, side: int, channels: tuple[int, int], expansion: int, stride: int, kernel: int, *, gated: bool
) -> KeyFeatures:
    (inputs, outputs), places = channels, (-(-side // stride)) ** 2
    wide = inputs * expansion
    expand = inputs * wide if expansion > 1 else 0
    gate = 2 * wide * (wide // 4) if gated else 0
    depthwise = places * wide * kernel**2
    elements = side**2 * (inputs + (2 * wide if expansion > 1 else 0)) + places * (2 * wide + outputs)
    elements += 2 * places * wide if gated else 0
    return KeyFeatures(
        kind=kind,
        macs=side**2 * expand + depthwise + places * wide * outputs + gate,
        traffic_bytes=4 * elements,
        params=expand + wide * kernel**2 + wide * outputs + gate,
        depthwise_macs=depthwise,
    )


@functools.cache
def _features() -> Mapping[str, KeyFeatures]:
    space = get_space(SPACE)
    return features_of(space.block_specs((space.default_resolution,)))


@functools.cache
def _lut(device: str, seed: int) -> SourceEntries:
    """Return a LUT from scratch, of other networks than those of the trials."""
    networks = first(_networks(device, LUT_SEED + seed), range(LUT_NETWORKS))
    return entries_of(device, fit_entries(measured(networks, LUT_SEED + seed), _features()))


@functools.cache
def _networks(device: str, seed: int) -> FitData:
    blocks, handed = _archs(seed)
    return networks_of(blocks, handed, np.array([TRUTHS[device].latency_ms(keys) for keys in blocks]))


@functools.cache
def _archs(seed: int) -> tuple[list[tuple[str, ...]], list[int]]:
    """Return blocks of networks of the space, and the bytes between them."""
    space, rng = get_space(SPACE), random.Random(f"transfer:{seed}")
    count = CANDIDATES + HELDOUT
    drawn = dict.fromkeys(space.sample(rng, (space.default_resolution,)) for _ in range(count + count // 10))
    blocks = [tuple(arch.keys()) for arch in drawn][:count]
    return blocks, [boundary_bytes(parse_keys(keys)) for keys in blocks]


def with_shuffled(sources: Sequence[SourceEntries], shuffled: str, seed: int) -> list[SourceEntries]:
    """Return the sources with, or replaced by, the first one with its entries assigned to other keys."""
    if shuffled == "no":
        return list(sources)
    right = sources[0]
    keys = list(right.entry_ms)
    random.Random(seed).shuffle(keys)
    ms, se = (
        {key: values[other] for key, other in zip(values, keys, strict=True)} if values else {}
        for values in (right.entry_ms, right.entry_se)
    )
    wrong = SourceEntries("shuffled", ms, right.base_ms, entry_se=se)
    return [wrong] if shuffled == "only" else [*sources, wrong]


def _trial(
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries],
    networks: FitData,
    entry_ms: Mapping[str, float],
    seed: int,
    chosen: bool,
) -> Trial:
    candidates = measured(first(networks, range(CANDIDATES)), seed)
    heldout = first(networks, range(CANDIDATES, CANDIDATES + HELDOUT))
    most = max(COUNTS)
    order = chosen_order(features, sources, candidates, most) if chosen else range(most)
    fitted = first(candidates, order)
    return Trial(features, tuple(sources), fitted, measured(heldout, seed + 1), heldout.ms, entry_ms)
