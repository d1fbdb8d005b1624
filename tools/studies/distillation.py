"""A supernet without a teacher, with soft and with hard distillation (AutoViT's Table 4)."""

from __future__ import annotations

import statistics
from dataclasses import replace

from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options
from tools.studies.trainings import TEACHER, SupernetStudy, Training, trained_teacher
from tools.tables import Tables, mean_and_range

PAPER_TOP1 = {"none": 64.6, "soft": 70.5, "hard": 71.3}
"""Table 4: ImageNet, with RegNetY-32G as the teacher."""


def main(options: Options) -> Tables:
    """Compare inherited validation top-1 in percent over seeds; gains are paired by seed.

    Augmentation repeats every second epoch with all three kinds, so that stored teacher labels can be reused.
    """
    study = SupernetStudy(options)
    teacher, teacher_top1 = trained_teacher(study.data, options.on, quick=options.quick)
    rows = []
    none_means: list[float] = []
    for kind, paper in PAPER_TOP1.items():  # in this order: "hard" reuses the labels that "soft" stores
        accuracies = study.accuracies(
            [_training(study, kind, teacher, seed) for seed in range(options.seeds)]
        )
        means = [statistics.fmean(each.values()) for each in accuracies]
        none_means = none_means or means
        gains = [mean - none for mean, none in zip(means, none_means, strict=True)]
        rows.append(
            {
                "distillation": kind,
                f"mean of {len(study.archs)} networks": mean_and_range(means),
                "gain": mean_and_range(gains),
                "largest network": mean_and_range([each[study.archs[-1]] for each in accuracies]),
                "paper, ImageNet": paper,
            }
        )
    return {
        "Distillation": rows,
        "Teacher": [{"network": TEACHER, "top-1, %": teacher_top1}],
    }


def _training(study: SupernetStudy, kind: str, teacher: str, seed: int) -> Training:
    training = study.training(seed, augmentation_epochs=2)
    recipe = changed(training.recipe, {}, {"kind": kind, "alpha": 0.5, "tau": 1.0})
    return replace(training, recipe=recipe, teacher=None if kind == "none" else teacher)
