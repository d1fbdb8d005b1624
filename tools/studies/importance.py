"""First-order importance of Q, K, V and FFN channels (EfficientViT's figure 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.report.draw import BLUE, GREEN, ORANGE, PINK, figure, legend
from search.spaces import Arch
from tools.studies.attention_networks import HEADS, NAMES, heads_network, training_of
from tools.studies.network_analysis import kept_fractions, relative_to_block, taylor_importance
from tools.studies.shared import Options, run_parallel
from tools.studies.trainings import Evaluators, Training, evaluators
from tools.tables import Tables, mean_and_range

IMAGES, QUICK_IMAGES, BATCH = 4096, 64, 64
KEEP = 0.5
"""Fraction of all channels that pruning leaves."""
COLOURS = {"q": BLUE, "k": ORANGE, "v": GREEN, "ffn": PINK}

ByBlock = Mapping[tuple[int, str], float]
"""A figure by block and role."""


def main(options: Options) -> Tables:
    """Train both kinds of networks; compare channels by the change of the training loss when one is pruned.

    `in its block`: mean of a role's channels over the mean of all channels of the block. `kept`: percent of the
    role's channels that remain when the less important half of all channels is pruned. Range over seeds.
    """
    rows, kept_by_kind = [], {}
    for sees in HEADS:
        arch = heads_network(sees, quick=options.quick)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        found = [_importances(evaluators(each, options.on, final=True), arch, options) for each in trainings]
        kept_by_kind[sees] = [kept for _, kept in found]
        for role in COLOURS:
            relative, kept = ([_mean_of(role, pair[i]) for pair in found] for i in (0, 1))
            rows.append(
                {
                    "heads": NAMES[sees],
                    "channels": role,
                    "in its block": None if role == "ffn" else mean_and_range(relative),
                    "kept, %": mean_and_range(kept, 100),
                }
            )
    _draw(kept_by_kind, options)
    return {"Importance of channels": rows}


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


def _draw(kept_by_kind: Mapping[str, Sequence[ByBlock]], options: Options) -> None:
    from matplotlib.lines import Line2D

    with figure(760, 340) as drawn:
        panels = drawn.subplots(1, len(kept_by_kind), sharey=True)
        for panel, (sees, of_seeds) in zip(panels, kept_by_kind.items(), strict=True):
            for role, colour in COLOURS.items():
                blocks = [index for index, other in of_seeds[0] if other == role]
                values = [[100 * kept[index, role] for kept in of_seeds] for index in blocks]
                panel.plot(
                    blocks, list(map(statistics.fmean, values)), marker="o", color=colour, markersize=4
                )
                panel.vlines(blocks, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.4)
            panel.set(title=NAMES[sees], xlabel="block", ylim=(-3, 103))
            panel.grid(axis="y")
        panels[0].set_ylabel("channels kept, %")
        lines = [Line2D([], [], color=colour, marker="o", label=role) for role, colour in COLOURS.items()]
        legend(drawn, lines, 760)
        options.save(drawn, "importance")
