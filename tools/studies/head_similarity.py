"""How much the attention heads of a block resemble each other (EfficientViT's figure 4)."""

from __future__ import annotations

import statistics
from collections import defaultdict

from orchestrator.report.draw import BLUE, MUTED, ORANGE, figure, legend
from tools.studies._options import Options
from tools.studies._pairs import NAMES, mean_and_range, setting, trained_pair
from tools.studies.network_analysis import HeadSimilarity, attention_maps, head_similarity

IMAGES = 512
QUICK_IMAGES = 16
COLOURS = {"full": ORANGE, "split": BLUE}

Measured = dict[str, dict[int, list[tuple[HeadSimilarity, HeadSimilarity]]]]
"""Kind of heads -> number of the attention block from 1 -> (plain, centred) of each seed."""


def main(options: Options) -> str:
    """Train both kinds of networks, compare their attention maps on images held out, draw; the section's text."""
    pair = trained_pair(options)
    held_out = pair.images.split.validation[: QUICK_IMAGES if options.quick else IMAGES]
    images, _ = pair.images.batch(held_out, 32)
    measured: Measured = {kind: defaultdict(list) for kind in pair.blocks}
    for kind, blocks, one in pair.networks():
        for number, block in enumerate(attention_maps(one.network, blocks, images), 1):
            plain, centred = (head_similarity(block.maps, centred=centred) for centred in (False, True))
            measured[kind][number].append((plain, centred))
    _draw(measured, options)
    return f"""### Similarity of heads (figure 4)

{setting(pair, options)}
Cosine similarity of the attention maps of a head and of the head of its block that is most like it, averaged over
heads and {len(images)} images held out; smallest and largest of the seeds in brackets. Centred: what is left of
both maps once the uniform one is subtracted, as maps of positive numbers are never orthogonal.

| attention block | {" | ".join(f"{NAMES[kind]} | centred" for kind in measured)} |
|---|{"---|" * (2 * len(measured))}
{chr(10).join(_row(measured, number) for number in measured["full"])}

{_conclusion(measured)}

![Similarity of heads by block](pictures/head_similarity.png)
"""


def _row(measured: Measured, number: int) -> str:
    cells = []
    for kinds in measured.values():
        for column in (0, 1):
            cells.append(mean_and_range([seed[column].maximum for seed in kinds[number]], ".3f"))
    return f"| {number} | {' | '.join(cells)} |"


def _average(measured: Measured, kind: str, column: int) -> float:
    return statistics.fmean(seed[column].maximum for seeds in measured[kind].values() for seed in seeds)


def _conclusion(measured: Measured) -> str:
    full, split = (_average(measured, kind, 0) for kind in ("full", "split"))
    centred_full, centred_split = (_average(measured, kind, 1) for kind in ("full", "split"))
    lower = sum(
        statistics.fmean(seed[0].maximum for seed in measured["split"][number])
        < statistics.fmean(seed[0].maximum for seed in seeds)
        for number, seeds in measured["full"].items()
    )
    return (
        f"Over all blocks {full:.3f} where heads see all channels and {split:.3f} where each sees a split (centred "
        f"{centred_full:.3f} and {centred_split:.3f}); splits are lower in {lower} of {len(measured['full'])} "
        "blocks. The paper finds splits lower, on ImageNet and in Swin and DeiT of 12 blocks. Networks this small, "
        "after so few epochs, show whether the direction is there at all, not its size."
    )


def _draw(measured: Measured, options: Options) -> None:
    from matplotlib.lines import Line2D

    with figure(760, 340) as drawn:
        panels = drawn.subplots(1, 2, sharex=True)
        for column, (panel, title) in enumerate(zip(panels, ("as they are", "centred"), strict=True)):
            for kind, blocks in measured.items():
                numbers = list(blocks)
                values = [[seed[column].maximum for seed in blocks[number]] for number in numbers]
                means = [statistics.fmean(each) for each in values]
                panel.fill_between(
                    numbers, list(map(min, values)), list(map(max, values)), color=COLOURS[kind], alpha=0.2
                )
                panel.plot(numbers, means, marker="o", color=COLOURS[kind])
            panel.set(title=title, xlabel="attention block", xticks=numbers)
            panel.grid(axis="y")
        panels[0].set_ylabel("similarity to the nearest head")
        lines = [Line2D([], [], color=COLOURS[kind], marker="o", label=NAMES[kind]) for kind in measured]
        lines.append(Line2D([], [], color=MUTED, linewidth=8, alpha=0.3, label="range of seeds"))
        legend(drawn, lines, 760)
        options.save(drawn, "head_similarity")
