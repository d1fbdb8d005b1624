"""One supernet for all sizes against three by parameters (AutoViT, section 5.2)."""

from __future__ import annotations

import statistics

from tools.studies._options import Options
from tools.studies._supernets import REFERENCE_DRAWS, Supernets, gains, spread


def main(options: Options) -> str:
    """Train one supernet and three for every seed; the section's text."""
    setup = Supernets(options)
    seeds = range(options.seeds)
    whole = setup.inherited([setup.run("none", seed) for seed in seeds])
    rows = []
    of_all: list[list[float]] = [[], []]
    for name, (low, high) in setup.ranges.items():
        within = [arch for arch in setup.archs if low <= arch.params() <= high]
        parts = setup.inherited([setup.run("none", seed, params_range=(low, high)) for seed in seeds])
        one = [statistics.fmean(each[arch] for arch in within) for each in whole]
        own = [statistics.fmean(each[arch] for arch in within) for each in parts]
        of_all[0].append(statistics.fmean(one))
        of_all[1].append(statistics.fmean(own))
        rows.append(
            f"| {name}, {low / 1e3:.0f} to {high / 1e3:.0f} thousand | {len(within)} | {spread(one)} "
            f"| {spread(own)} | {gains(own, one)} |"
        )
    least, most = min(low for low, _ in setup.ranges.values()), max(high for _, high in setup.ranges.values())
    one_mean, own_mean = (100 * statistics.fmean(values) for values in of_all)
    return f"""### One supernet or three (section 5.2)

{setup.setting()}
Every one of the three has as many steps as the one, so the three together have three times its steps. The ranges
are thirds of {REFERENCE_DRAWS} random networks of {least / 1e3:.0f} to {most / 1e3:.0f} thousand parameters.
Inherited accuracy in
percent, mean over the networks of the range; in brackets the smallest and largest seed; the gain is paired by seed.

| parameters | networks | one supernet | its range's supernet | gain |
|---|---|---|---|---|
{chr(10).join(rows)}

Over the ranges {one_mean:.1f} % inherited from one supernet, {own_mean:.1f} % from three. The paper finds 65.3 %
and 71.3 % for its searched network of 1.8 M parameters on ImageNet, in spaces that span more sizes than this one.
"""
