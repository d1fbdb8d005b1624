"""One supernet for all sizes against three by parameters (AutoViT, section 5.2: 65.3 and 71.3 % on ImageNet)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from search.spaces import Arch
from tools.studies.shared import Options
from tools.studies.trainings import SupernetStudy
from tools.tables import Tables, mean_and_range


def main(options: Options) -> Tables:
    """Compare, for each range of sizes, one supernet, one with three times the steps, and the range's own.

    Inherited validation top-1 in percent, mean over the networks of a range, smallest and largest over seeds. Each
    range's own supernet has as many steps as the first; the three together have as many as the second.
    """
    study, seeds = SupernetStudy(options), range(options.seeds)
    one = study.accuracies([study.training(seed) for seed in seeds])
    longer = study.accuracies([study.training(seed, len(study.ranges) * options.epochs) for seed in seeds])
    rows = []
    for name, (low, high) in study.ranges.items():
        archs = [arch for arch in study.archs if low <= arch.params() <= high]
        own = study.accuracies([study.training(seed, params_range=(low, high)) for seed in seeds])
        means = [_means(accuracies, archs) for accuracies in (one, longer, own)]
        rows.append(
            {
                "range": name,
                "fewest parameters": low,
                "most parameters": high,
                "networks": len(archs),
                "one supernet": mean_and_range(means[0]),
                "three times the steps": mean_and_range(means[1]),
                "the range's own": mean_and_range(means[2]),
                "gain at equal steps each": mean_and_range(_differences(means[2], means[0])),
                "gain at equal steps in all": mean_and_range(_differences(means[2], means[1])),
            }
        )
    return {"One supernet or three": rows}


def _means(accuracies: Sequence[dict[Arch, float]], archs: Sequence[Arch]) -> list[float]:
    """Return the mean over networks, for each seed."""
    return [statistics.fmean(each[arch] for arch in archs) for each in accuracies]


def _differences(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, base, strict=True)]
