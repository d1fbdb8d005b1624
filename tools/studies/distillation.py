"""A supernet without a teacher, with soft and with hard distillation (AutoViT's Table 4)."""

from __future__ import annotations

import statistics

from tools.studies import _teacher
from tools.studies._options import Options
from tools.studies._spreads import gains, spread
from tools.studies._supernets import Supernets

KINDS = {"none": "no teacher", "soft": "soft (equation 3)", "hard": "hard (equation 4)"}
PAPER = {"none": 64.6, "soft": 70.5, "hard": 71.3}
"""Table 4, ImageNet, RegNetY-32G as teacher."""


def main(options: Options) -> str:
    """Train the supernets of all seeds; the section's text."""
    setup = Supernets(options)
    seeds = range(options.seeds)
    accuracies = {
        kind: setup.inherited([setup.run(kind, seed, augmentation_epochs=2) for seed in seeds])
        for kind in KINDS
    }  # one kind after another: soft leaves its teacher's answers to hard
    means = {kind: [statistics.fmean(each.values()) for each in runs] for kind, runs in accuracies.items()}
    largest = {kind: [each[setup.archs[-1]] for each in runs] for kind, runs in accuracies.items()}
    rows = [
        f"| {name} | {spread(means[kind])} | {'' if kind == 'none' else gains(means[kind], means['none'])} "
        f"| {spread(largest[kind])} | {PAPER[kind]} |"
        for kind, name in KINDS.items()
    ]
    better = sum(
        each[arch] > base[arch]
        for each, base in zip(accuracies["soft"], accuracies["none"], strict=True)
        for arch in base
    )
    better_hard = sum(
        each[arch] > base[arch]
        for each, base in zip(accuracies["hard"], accuracies["none"], strict=True)
        for arch in base
    )
    pairs = len(setup.archs) * options.seeds
    return f"""### Distillation (Table 4)

{setup.setting()}
Inherited accuracy in percent; mean over networks of each seed, in brackets the smallest and largest seed, and the
paired difference to no teacher. The teacher is timm's `{_teacher.NETWORK}` with ImageNet weights, fine-tuned for
{_teacher.RECIPE.epochs} epochs at {_teacher.SIDE} px: {100 * setup.teacher_accuracy():.1f} % on the same images.
alpha 0.5, tau 1; the augmentation comes again every second epoch in all three kinds, so that stored answers serve.

| learns from | mean of {len(setup.archs)} networks | gain | largest network | paper, ImageNet |
|---|---|---|---|---|
{chr(10).join(rows)}

Soft distillation is better than none for {better} of {pairs} pairs of network and seed, hard for {better_hard};
networks of a seed share one supernet, so these are {options.seeds} trainings of each kind and
not {pairs} independent ones.
"""
