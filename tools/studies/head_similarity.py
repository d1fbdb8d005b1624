"""Similarity of the attention heads of a block (EfficientViT's figure 4)."""

from __future__ import annotations

from tools.studies.attention_networks import HEADS, NAMES, heads_network, training_of
from tools.studies.network_analysis import attention_maps, head_similarity
from tools.studies.shared import Options, draw_lines, run_parallel
from tools.studies.trainings import Training, evaluators
from tools.tables import Tables, mean_and_range

IMAGES, QUICK_IMAGES = 512, 16


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
    with options.draw("head_similarity", 760, 340, 2) as panels:
        for panel, column in zip(panels, ("similarity", "centred"), strict=True):
            draw_lines(panel, rows, "attention block", column, "heads")
    return {"Networks": networks, "Similarity of heads": rows}
