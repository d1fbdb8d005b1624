"""First-order importance of Q, K, V and FFN channels (EfficientViT's figure 5)."""

from __future__ import annotations

import statistics
from collections import defaultdict

import numpy as np

from orchestrator.report.draw import BLUE, GREEN, ORANGE, PINK, figure, legend
from tools.studies._options import Options
from tools.studies._pairs import NAMES, mean_and_range, setting, trained_pair
from tools.studies.network_analysis import kept_fractions, relative_to_block, taylor_importance

IMAGES = 4096
QUICK_IMAGES = 64
BATCH = 64
KEEP = 0.5
"""Share of all channels that pruning leaves."""

ROLES = {"q": ("Q", BLUE), "k": ("K", ORANGE), "v": ("V", GREEN), "ffn": ("FFN", PINK)}

Measured = dict[str, dict[tuple[int, str], list[tuple[float, float]]]]
"""Kind of heads -> (number of the block, role) -> (mean in its block, share kept) of each seed."""


def main(options: Options) -> str:
    """Train both kinds of networks, find importances on training images, draw; the section's text."""
    pair = trained_pair(options)
    shuffled = np.random.default_rng(0).permutation(pair.images.split.train)
    chosen = shuffled[: QUICK_IMAGES if options.quick else IMAGES]
    measured: Measured = {kind: defaultdict(list) for kind in pair.blocks}
    for kind, blocks, one in pair.networks():
        importances = taylor_importance(one.network, blocks, pair.images.batches(chosen, 32, BATCH))
        relative, kept = relative_to_block(importances), kept_fractions(importances, KEEP)
        numbers = {index: number for number, index in enumerate(dict.fromkeys(i for i, _ in kept), 1)}
        for (index, role), share in kept.items():
            measured[kind][numbers[index], role].append((relative[index, role], share))
    _draw(measured, options)
    tables = "\n".join(_table(kind, measured) for kind in measured)
    return f"""### Importance of channels (figure 5)

{setting(pair, options)}
Change of the loss to first order when a channel is pruned, mean over batches of {BATCH} of {len(chosen):,} training
images. `in its block` is the mean of a role's channels over that of all channels of the block (an FFN block has one
role, hence no such number); `kept` the share that is left once the less important half of all channels of the
network is pruned. Smallest and largest of the seeds in brackets.

{tables}
{_conclusion(measured)}

![Share of channels kept by role and block](pictures/importance.png)
"""


def _table(kind: str, measured: Measured) -> str:
    rows = []
    for role, (name, _) in ROLES.items():
        places = [values for (_, other), values in measured[kind].items() if other == role]
        relative, kept = (
            [statistics.fmean(seed) for seed in zip(*_column(places, i), strict=True)] for i in (0, 1)
        )
        inside = "" if role == "ffn" else mean_and_range(relative, ".2f")
        rows.append(f"| {name} | {inside} | {mean_and_range(kept, '.0%')} |")
    return f"| {NAMES[kind]} | in its block | kept |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _column(places: list[list[tuple[float, float]]], column: int) -> list[list[float]]:
    """Of each block, the values of all seeds."""
    return [[seed[column] for seed in seeds] for seeds in places]


def _share(measured: Measured, kind: str, role: str) -> float:
    return statistics.fmean(
        s[1] for (_, other), seeds in measured[kind].items() if other == role for s in seeds
    )


def _conclusion(measured: Measured) -> str:
    orders = []
    for kind in measured:
        shares = sorted(
            ((_share(measured, kind, role), name) for role, (name, _) in ROLES.items()), reverse=True
        )
        orders.append(f"{NAMES[kind]}: {', '.join(f'{name} {share:.0%}' for share, name in shares)}")
    return (
        f"Kept, in order: {'; '.join(orders)}. The paper prunes Swin-T and DeiT-T; V keeps nearly all there, "
        "Q, K and FFN lose most. Q and K would be equal without what stands between them and their product, as a "
        "gate on a channel of one is one on that of the other; here a depthwise convolution and its BN follow Q. A "
        "first-order estimate on a network of this size ranks roles; how accuracy holds after pruning it can't say."
    )


def _draw(measured: Measured, options: Options) -> None:
    from matplotlib.lines import Line2D

    with figure(760, 340) as drawn:
        panels = drawn.subplots(1, len(measured), sharey=True)
        for panel, (kind, places) in zip(panels, measured.items(), strict=True):
            for role, (_, colour) in ROLES.items():
                own = {
                    number: [s[1] for s in seeds]
                    for (number, other), seeds in places.items()
                    if other == role
                }
                means = [100 * statistics.fmean(seeds) for seeds in own.values()]
                panel.plot(list(own), means, marker="o", color=colour, markersize=4)
                for number, seeds in own.items():
                    panel.vlines(number, 100 * min(seeds), 100 * max(seeds), color=colour, alpha=0.4)
            panel.set(title=NAMES[kind], xlabel="block", ylim=(-3, 103))
            panel.grid(axis="y")
        panels[0].set_ylabel("channels kept, %")
        lines = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in ROLES.values()]
        legend(drawn, lines, 760)
        options.save(drawn, "importance")
