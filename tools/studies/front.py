"""The true front of accuracy against predicted latency: every network of NAS-Bench-Macro, priced by a LUT."""

from __future__ import annotations

import numpy as np

from luts.format.schema import Floats, Integers
from orchestrator.report.draw import MUTED, ORANGE, figure
from search.algorithms.record import skyline
from search.spaces.nasbench_macro import key_of
from tools.studies._macro import BUDGETS, Priced, Truth, open_truth, priced
from tools.studies._options import Options

NEAR = 0.03
"""Share of a latency within which networks count as equally fast."""

LEAST_SHOWN = 0.85
"""Least top-1 of the picture."""


def main(options: Options) -> str:
    """Price all, draw; the section's text."""
    truth, costs = open_truth(options.truth), priced(options.lut)
    top1 = np.array([truth.accuracy(arch) for arch in costs.archs])
    front = skyline(np.column_stack([costs.latency_ms, -top1]))
    _draw(costs, top1, front, options)
    return f"""### Every network priced (NAS-Bench-Macro)

{costs.made_up}All {len(top1):,} networks, latency by {costs.name}; top-1 is the published one on CIFAR-10,
mean of the table's trainings. {len(front)} networks are on the front: none is as fast and more accurate. It is
chosen by the very accuracies that it shows, whose noise it takes along. Beside it networks that are equally fast,
within {NEAR:.0%}: their mean and standard deviation. The picture begins at {LEAST_SHOWN:.0%}, below which
{(top1 < LEAST_SHOWN).mean():.0%} of the networks lie.

| networks within | ms | best on the front, % | M MACs | network | equally fast, % | sd, points |
|---|---|---|---|---|---|---|
{chr(10).join(_row(share, costs, truth, top1, front) for share in (*BUDGETS, 1.0))}

![Published accuracy against predicted latency, and its front](pictures/front.png)
"""


def _row(share: float, costs: Priced, truth: Truth, top1: Floats, front: Integers) -> str:
    budget_ms = costs.budget_ms(share)
    best = [index for index in front if costs.latency_ms[index] <= budget_ms][-1]
    latency_ms, key = costs.latency_ms[best], key_of(costs.archs[best])
    near = top1[np.abs(costs.latency_ms / latency_ms - 1) <= NEAR]
    return (
        f"| {share:.0%} | {latency_ms:.3f} | {100 * top1[best]:.2f} | {truth.macs[key] / 1e6:.1f} | `{key}` "
        f"| {100 * near.mean():.2f} | {100 * near.std(ddof=1):.2f} |"
    )


def _draw(costs: Priced, top1: Floats, front: Integers, options: Options) -> None:
    with figure(620, 380) as drawn:
        panel = drawn.subplots()
        panel.scatter(costs.latency_ms, 100 * top1, s=3, color=MUTED, alpha=0.35, linewidths=0)
        panel.step(
            costs.latency_ms[front], 100 * top1[front], where="post", marker="o", markersize=4, color=ORANGE
        )
        panel.set(xlabel="predicted latency, ms", ylabel="published top-1, %", ylim=(100 * LEAST_SHOWN, 94))
        panel.grid()
        options.save(drawn, "front")
