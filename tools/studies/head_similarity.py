"""Similarity of the attention heads of a block (EfficientViT's figure 4)."""

from __future__ import annotations

from orchestrator.report.draw import BLUE, MUTED, ORANGE, figure, legend
from tools.studies.attention_networks import HEADS, NAMES, heads_network, training_of
from tools.studies.network_analysis import attention_maps, head_similarity
from tools.studies.shared import Options, run_parallel
from tools.studies.trainings import Training, evaluators
from tools.tables import Interval, Rows, Tables, mean_and_range

IMAGES, QUICK_IMAGES = 512, 16
COLOURS = {"full": ORANGE, "split": BLUE}


def main(options: Options) -> Tables:
    """Train both kinds of networks; compare attention maps on held-out images, with the range over seeds.

    A head is compared with the head of its block that is most similar, by cosine; heads and images are averaged.
    Centred: the uniform map is subtracted first, because maps of positive numbers are never orthogonal.
    """
    networks, rows = [], []
    for sees in HEADS:
        arch = heads_network(sees, quick=options.quick)
        trainings = [training_of(arch, options, seed) for seed in range(options.seeds)]
        run_parallel(Training.run, trainings, options)
        opened = [evaluators(training, options.on, final=True) for training in trainings]
        top1 = [100 * each.top1.accuracies([arch])[0] for each in opened]
        networks.append({"heads": NAMES[sees], "parameters": arch.params(), "top-1": mean_and_range(top1)})
        blocks, similarities = arch.blocks(), []
        for each in opened:
            held_out = each.network_of.held_out[: QUICK_IMAGES if options.quick else IMAGES]
            images, _ = each.network_of.data.batch(held_out, arch.resolution)
            maps = attention_maps(each.network_of.network(arch).eval().cpu(), blocks, images)
            similarities.append(
                [(head_similarity(m.maps), head_similarity(m.maps, centred=True)) for m in maps]
            )
        for number, of_seeds in enumerate(zip(*similarities, strict=True), 1):
            plain, centred = ([pair[i].maximum for pair in of_seeds] for i in (0, 1))
            rows.append(
                {
                    "heads": NAMES[sees],
                    "attention block": number,
                    "similarity": mean_and_range(plain),
                    "centred": mean_and_range(centred),
                }
            )
    _draw(rows, options)
    return {"Networks": networks, "Similarity of heads": rows}


def _draw(rows: Rows, options: Options) -> None:
    from matplotlib.lines import Line2D

    with figure(760, 340) as drawn:
        panels = drawn.subplots(1, 2, sharex=True)
        for panel, column in zip(panels, ("similarity", "centred"), strict=True):
            for sees, colour in COLOURS.items():
                own = [row for row in rows if row["heads"] == NAMES[sees]]
                numbers = [row["attention block"] for row in own]
                values = [row[column] for row in own]
                means, lows, highs = zip(*(v for v in values if isinstance(v, Interval)), strict=True)
                panel.fill_between(numbers, lows, highs, color=colour, alpha=0.2)
                panel.plot(numbers, means, marker="o", color=colour)
            panel.set(title=column, xlabel="attention block", xticks=numbers)
            panel.grid(axis="y")
        panels[0].set_ylabel("similarity to the nearest head")
        lines = [
            Line2D([], [], color=colour, marker="o", label=NAMES[sees]) for sees, colour in COLOURS.items()
        ]
        lines.append(Line2D([], [], color=MUTED, linewidth=8, alpha=0.3, label="range of seeds"))
        legend(drawn, lines, 760)
        options.save(drawn, "head_similarity")
