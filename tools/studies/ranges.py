"""One supernet for all sizes against three by parameters (AutoViT, section 5.2)."""

from __future__ import annotations

import statistics

from tools.studies._options import Options
from tools.studies._spreads import gains, spread
from tools.studies._supernets import REFERENCE_DRAWS, Supernets


def main(options: Options) -> str:
    """Train one supernet and three for every seed; the section's text."""
    setup = Supernets(options)
    seeds = range(options.seeds)
    whole = setup.inherited([setup.run("none", seed) for seed in seeds])
    longer = setup.inherited([setup.run("none", seed, len(setup.ranges) * options.epochs) for seed in seeds])
    rows = []
    of_all: list[list[float]] = [[], [], []]
    for name, (low, high) in setup.ranges.items():
        within = [arch for arch in setup.archs if low <= arch.params() <= high]
        parts = setup.inherited([setup.run("none", seed, params_range=(low, high)) for seed in seeds])
        one, long, own = (
            [statistics.fmean(each[arch] for arch in within) for each in runs]
            for runs in (whole, longer, parts)
        )
        for means, values in zip(of_all, (one, long, own), strict=True):
            means.append(statistics.fmean(values))
        rows.append(
            f"| {name}, {low / 1e3:.0f} to {high / 1e3:.0f} thousand | {len(within)} | {spread(one)} "
            f"| {spread(long)} | {spread(own)} | {gains(own, one)} | {gains(own, long)} |"
        )
    least, most = min(low for low, _ in setup.ranges.values()), max(high for _, high in setup.ranges.values())
    one_mean, long_mean, own_mean = (100 * statistics.fmean(values) for values in of_all)
    times = len(setup.ranges)
    return f"""### One supernet or three (section 5.2)

{setup.setting()}
One supernet, one with {times} times the steps, and three: each of the three has as many steps as the first, all
three together as many as the second. The ranges are thirds of {REFERENCE_DRAWS} random networks of
{least / 1e3:.0f} to {most / 1e3:.0f} thousand parameters. Inherited accuracy in percent, mean over the networks of
the range; in brackets the smallest and largest seed; gains of the range's own supernet are paired by seed.

| parameters | networks | one | {times} times the steps | its range's | gain, equal each | gain, equal in all |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Over the ranges {one_mean:.1f} % inherited from one supernet, {long_mean:.1f} % from the longer one,
{own_mean:.1f} % from three. The paper finds 65.3 % and 71.3 % for its searched network of 1.8 M parameters on
ImageNet, in spaces that span more sizes than this one.
"""
