"""First-order importance of Q, K, V and FFN channels (EfficientViT's figure 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np

from search.spaces import Arch
from tools.studies.attention_networks import HEADS, NAMES, heads_network, training_of
from tools.studies.network_analysis import kept_fractions, relative_to_block, taylor_importance
from tools.studies.shared import Options, draw_lines, run_parallel
from tools.studies.trainings import Evaluators, Training, evaluators
from tools.tables import Tables, mean_and_range

IMAGES, QUICK_IMAGES, BATCH = 4096, 64, 64
KEEP = 0.5
"""Fraction of all channels that pruning leaves."""
ROLES = ("q", "k", "v", "ffn")

ByBlock = Mapping[tuple[int, str], float]
"""A figure by block and role."""


def main(options: Options) -> Tables:
    """Train both kinds of networks; compare channels by the change of the training loss when one is pruned.

    `in its block`: mean of a role's channels over the mean of all channels of the block. `kept`: percent of the
    role's channels that remain when the less important half of all channels is pruned. Range over seeds.
    """
    rows, blocks = [], []
    for sees in HEADS:
        arch = heads_network(sees, quick=options.quick)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        found = [_importances(evaluators(each, options.on, final=True), arch, options) for each in trainings]
        blocks += [
            {
                "heads": NAMES[sees],
                "channels": role,
                "block": index,
                "kept, %": mean_and_range([kept[index, role] for _, kept in found], 100),
            }
            for index, role in found[0][1]
        ]
        for role in ROLES:
            relative, kept = ([_mean_of(role, pair[i]) for pair in found] for i in (0, 1))
            rows.append(
                {
                    "heads": NAMES[sees],
                    "channels": role,
                    "in its block": None if role == "ffn" else mean_and_range(relative),
                    "kept, %": mean_and_range(kept, 100),
                }
            )
    with options.draw("importance", 760, 340, len(HEADS)) as panels:
        for panel, name in zip(panels, NAMES.values(), strict=True):
            own = [row for row in blocks if row["heads"] == name]
            draw_lines(panel, own, "block", "kept, %", "channels")
            panel.set(title=name, ylim=(-3, 103))
    return {"Importance of channels": rows, "Importance by block": blocks}


def _importances(opened: Evaluators, arch: Arch, options: Options) -> tuple[ByBlock, ByBlock]:
    """Return relative importance and kept fraction by block and role, on training images."""
    data = opened.network_of.data
    chosen = np.random.default_rng(0).permutation(data.split.train)[
        : QUICK_IMAGES if options.quick else IMAGES
    ]
    network = opened.network_of.network(arch).cpu()
    found = taylor_importance(network, arch.blocks(), data.batches(chosen, arch.resolution, BATCH))
    return relative_to_block(found), kept_fractions(found, KEEP)


def _mean_of(role: str, figures: ByBlock) -> float:
    return statistics.fmean(value for (_, other), value in figures.items() if other == role)
