"""Convolutions and attention, or attention alone, at equal latency (AutoViT, section 5.3), at small scale.

Two restrictions of `autovit-nano` without a common architecture: `transformer-only` has its convolutional stages at
their smallest, `hybrid` has two MBConv blocks of any width before the transformers. Each is searched with the same
number of evaluations, in the same supernets, within the same latencies.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agent.device import usable_cores
from search.algorithms import (
    INHERITED_ACCURACY,
    CachedEvaluator,
    Constraints,
    LutPrice,
    ObjectiveOpener,
    SearchSettings,
    latency_bounds,
    search,
)
from search.algorithms.evaluation import ProcessPool
from search.blocks import parse_key
from search.spaces import Arch, Space, get_space
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.train.checkpoint import load_supernet
from tools.benchmarks.shared import bench, lut_in
from tools.tables import Tables, mean_and_range

SPACE = "autovit-nano"
PROFILE = "--removals none --design 16 --heldout 20 --budget 45s"
SEEDS = (0, 1)
TRAIN = f"train --space {SPACE} --data digits --recipe demo --epochs 10"
SHARES = (0.1, 0.4, 0.7)
"""Positions of the budgets between the smallest and the largest latency that both restrictions can have."""

SETTINGS = SearchSettings(
    strategy="evolution", population=12, generations=2, parents=5, crossovers=6, mutations=6
)

ATTENTION = "transformer-only"
HYBRID = "hybrid"
RESTRICTIONS: Mapping[str, Mapping[str, Mapping[str, tuple[int, ...]]]] = {
    ATTENTION: {"stem": {"width": (8,)}, "mbconv1": {"width": (16,), "depth": (1,)}},
    HYBRID: {"mbconv1": {"depth": (2,)}},
}
"""Choices that a restriction leaves, by stage; other choices remain."""


@dataclass(frozen=True)
class Winner:
    """The best of a restriction within a budget, in one supernet; accuracies 0 to 1."""

    arch: Arch
    latency_ms: float
    search_accuracy: float
    validation_accuracy: float


def restricted(space: Space, choices: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Space:
    """Return the part of a space with these choices."""
    stages = tuple(
        dataclasses.replace(
            stage,
            choices=tuple(
                (name, choices.get(stage.name, {}).get(name, values)) for name, values in stage.choices
            ),
        )
        for stage in space.stages
    )
    return dataclasses.replace(space, stages=stages)


def main() -> Tables:
    """Search both restrictions within three latencies in supernets of two seeds, and measure the winners.

    Accuracies are means over the supernets; latencies are of the first supernet's winners.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench(f"profile --device host --space {SPACE} --threads 1 {PROFILE}", home)
        price = LutPrice(lut_in(home, f"host/{SPACE}").latency_model, SPACE)
        supernets = [home / f"supernet{seed}" for seed in SEEDS]
        for seed, supernet in zip(SEEDS, supernets, strict=True):
            bench(f"{TRAIN} --seed {seed} -o {supernet}")
        parts = {name: restricted(get_space(SPACE), choices) for name, choices in RESTRICTIONS.items()}
        budgets_ms = _budgets(parts, price)
        found = {
            (budget_ms, name): winners
            for name, part in parts.items()
            for budget_ms, *winners in zip(
                budgets_ms, *(_search(part, price, each, budgets_ms) for each in supernets), strict=True
            )
        }
        measured_ms = _measure(home, [winners[0].arch for winners in found.values()])
    rows = [
        {
            "budget ms": budget_ms,
            "restriction": name,
            "architectures": parts[name].size(),
            "predicted ms": winners[0].latency_ms,
            "measured ms": measured_ms[winners[0].arch],
            "search, %": 100 * statistics.mean(winner.search_accuracy for winner in winners),
            "validation, %": 100 * statistics.mean(winner.validation_accuracy for winner in winners),
            "MACs in attention layers, %": 100 * statistics.mean(attention_fraction(w.arch) for w in winners),
        }
        for (budget_ms, name), winners in sorted(found.items(), key=lambda item: item[0])
    ]
    gains = [
        100 * (hybrid.validation_accuracy - attention.validation_accuracy)
        for budget_ms in budgets_ms
        for hybrid, attention in zip(found[budget_ms, HYBRID], found[budget_ms, ATTENTION], strict=True)
    ]
    return {"Hybrid and transformer-only": rows, "Gain of hybrid": [{"points": mean_and_range(gains)}]}


def _budgets(parts: Mapping[str, Space], price: LutPrice) -> list[float]:
    """Return latencies that every restriction can reach and none can exceed entirely."""
    reach = [
        latency_bounds(part, price, Constraints(latency_ms=1, cautious=False)) for part in parts.values()
    ]
    low = max(found.smallest.latency_ms for found in reach)
    high = min(found.largest.latency_ms for found in reach)
    return [low + share * (high - low) for share in SHARES]


def _search(part: Space, price: LutPrice, checkpoint: Path, budgets_ms: list[float]) -> list[Winner]:
    """Return the winner within each budget."""
    supernet, info = load_supernet(checkpoint)
    data = reopen_data(info)
    judge = InheritedAccuracy(supernet, info, data)
    final = InheritedAccuracy(supernet, info, data, final=True)
    winners = []
    with ProcessPool(
        ObjectiveOpener(INHERITED_ACCURACY, checkpoint), judge.fingerprint, usable_cores()
    ) as pool:
        cached = CachedEvaluator(pool, checkpoint / "accuracies.jsonl")
        for budget_ms in budgets_ms:
            budget = Constraints(latency_ms=budget_ms, cautious=False)
            best = search(part, price, cached, budget, SETTINGS).winner
            arch = best.architecture()
            winners.append(Winner(arch, best.latency_ms, best.accuracy, final.accuracy(arch)))
    return winners


def _measure(home: Path, archs: list[Arch]) -> dict[Arch, float]:
    """Return milliseconds of each, all interleaved in one measurement."""
    files = {home / f"{arch.digest}.json": arch for arch in archs}
    for file, arch in files.items():
        file.write_text(arch.to_json(), encoding="utf-8")
    named = " ".join(f"--arch {file}" for file in files)
    printed = bench(f"measure --device host --threads 1 --budget 45s --json {named}", home)
    return {files[Path(row["model"])]: row["ms"] for row in json.loads(printed)["models"]}


def attention_fraction(arch: Arch) -> float:
    """Return the fraction of all MACs that transformer layers do."""
    macs = [(key, parse_key(key).macs().total) for key in arch.keys()]
    return sum(count for key, count in macs if key.startswith("mvit.layer")) / sum(count for _, count in macs)
