"""Distillation objectives at equal steps: one teacher, one student, trainings that share seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import stats

from luts.format.errors import UsageError
from luts.format.schema import Floats
from search.supernet.train.checkpoint import read_info
from tools.studies.shared import Options
from tools.studies.trainings import TEACHER, SupernetStudy, Training, trained_teacher
from tools.tables import Interval, Rows, Tables, mean_and_range, run_parallel

OBJECTIVES: dict[str, tuple[dict[str, object], ...]] = {
    "soft": ({"kind": "soft"},),
    "labels alone": (),
    "hard": ({"kind": "hard"},),
    "reverse": ({"kind": "soft", "direction": "reverse"},),
    "squared logits": ({"kind": "mse"},),
    "DIST": ({"kind": "dist"},),
    "DKD": ({"kind": "dkd"},),
    "NKD": ({"kind": "nkd"},),
    "NormKD": ({"kind": "normkd"},),
    "standardised": ({"kind": "soft", "standardise": True, "tau": 2},),
    "CTKD": ({"kind": "soft", "learned": True},),
    "similarity": ({"kind": "similarity"},),
    "MKD": ({"kind": "soft", "learned": "meta"},),
    "attention": ({"kind": "attention"},),
    "CTKD per image": ({"kind": "soft", "learned": "image"},),
    "soft at 4": ({"kind": "soft", "tau": 4},),
    "features": ({"kind": "features"},),
    "last epoch": ({"kind": "last-epoch"},),
}
"""Terms next to the labels', each of weight 1 as their papers' codes begin with; not tuned for this data."""

BASE = "soft"
WITHOUT_TEACHER = frozenset({"labels alone", "last epoch"})
PX = 32
"""Side of the teacher's images: CIFAR-10's own, which keeps the teacher's forward pass below the student's step."""
HELD_OUT, QUICK_HELD_OUT = 0.4, 0.1
"""Fraction of the training images left out: an epoch of 30,000 images bears dozens of trainings on one core."""
QUICK_EPOCHS = 4
"""Of the teacher on digits, where one of 22 steps leaves it near chance."""
CALIBRATION_BATCHES = 16
"""Of 128 images, for BN statistics of one network."""


def main(options: Options) -> Tables:
    """Train the teacher first, then the student with each objective; compare with soft labels seed by seed.

    The teacher trains for `--alone-epochs`. Trainings of one seed share initial weights, images and their
    augmentation, and all teacher logits. They run seed by seed, so that a run cut off has all objectives of a seed.

    Raises:
        UsageError: `--only` has an unknown objective or not "soft", or one seed is to say which differ.
    """
    names = [name.strip() for name in options.only.split(",")] if options.only else list(OBJECTIVES)
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown or BASE not in names or len(names) < 2 or options.seeds < 2:
        raise UsageError(
            f"objectives compares two or more seeds of {BASE!r} and others; --only takes: "
            f"{', '.join(OBJECTIVES)}",
            code="unknown_objective",
        )
    epochs = options.pick(options.alone_epochs or options.epochs, QUICK_EPOCHS)
    held_out = options.pick(HELD_OUT, QUICK_HELD_OUT)
    teacher, teacher_top1 = trained_teacher(options, PX, epochs=epochs, held_out=held_out)
    study = SupernetStudy(options, networks=1)
    trainings = [_training(study, name, teacher, seed) for seed in range(options.seeds) for name in names]
    train = partial(Training.top1_alone, on=options.on, final=True, calibration_batches=CALIBRATION_BATCHES)
    found = run_parallel(train, trainings, options.jobs)
    top1 = 100 * np.array(found).reshape(options.seeds, len(names)).T
    student, steps = study.archs[0], read_info(trainings[0].folder).step
    return {
        "Objectives": compare(dict(zip(names, top1, strict=True))),
        "Networks": [
            {"teacher": TEACHER, "px": PX, "top-1": teacher_top1}
            | {"student": study.space.name, "parameters": student.params(), "steps": steps}
        ],
    }


def compare(top1: Mapping[str, Sequence[float] | Floats]) -> Rows:
    """Return means in percent, and differences to soft labels with two 95 % intervals, best first.

    The paired interval is Student's of the differences between equal seeds. The pooled one takes the noise of all
    objectives to be equal (residual of a two-way analysis of variance), which few seeds need to tell anything.
    """
    values = np.array([list(each) for each in top1.values()])
    count, seeds = values.shape
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    degrees = (count - 1) * (seeds - 1)
    pooled = float(stats.t.ppf(0.975, degrees)) * math.sqrt(2 * float((residual**2).sum()) / degrees / seeds)
    rows = []
    for name, each in sorted(zip(top1, values, strict=True), key=lambda item: -item[1].mean()):
        own = each - values[list(top1).index(BASE)]
        mean = float(own.mean())
        widths = {"paired": float(stats.t.ppf(0.975, seeds - 1) * own.std(ddof=1)) / math.sqrt(seeds)}
        widths["pooled"] = pooled
        row: dict[str, object] = {"objective": name, "top-1": mean_and_range(each)}
        for kind, width in widths.items():
            row[f"against soft, {kind}"] = (
                Interval(mean, mean - width, mean + width) if name != BASE else None
            )
        told = [kind for kind, width in widths.items() if abs(mean) > width]
        row["told apart"] = " and ".join(told) or "no"
        rows.append(row)
    return rows


def _training(study: SupernetStudy, name: str, teacher: str, seed: int) -> Training:
    terms = ({"kind": "labels"}, *OBJECTIVES[name])
    training = study.training(
        seed,
        arch=study.archs[0].to_json(),
        held_out=study.options.pick(HELD_OUT, QUICK_HELD_OUT),
        augmentation_epochs=study.options.epochs,
        distillation={"terms": terms},
    )
    return replace(training, teacher=None if name in WITHOUT_TEACHER else teacher, teacher_px=PX)
