"""Pareto front of published accuracy against predicted latency over all networks of NAS-Bench-Macro."""

from __future__ import annotations

import numpy as np

from luts.format.schema import Floats, Integers
from orchestrator.report.draw import MUTED, ORANGE
from search.algorithms.pareto import pareto_rows
from search.spaces.nasbench_macro import key_of
from tools.studies.macro import BUDGETS, NEAR, PricedSpace, priced_by, read_truth
from tools.studies.shared import Options
from tools.tables import Tables

LOWEST_DRAWN = 85.0
"""Lowest top-1 of the figure, in percent."""


def main(options: Options) -> Tables:
    """Compare the best network within each budget with those of equal latency (top-1 in percent)."""
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    top1 = 100 * truth.accuracies(priced.archs)
    front = pareto_rows(np.column_stack([priced.latency_ms, -top1]))
    _draw(priced, top1, front, options)
    rows = []
    for fraction in (*BUDGETS, 1.0):
        best = [index for index in front if priced.latency_ms[index] <= priced.budget_ms(fraction)][-1]
        latency_ms, key = priced.latency_ms[best], key_of(priced.archs[best])
        near = top1[np.abs(priced.latency_ms / latency_ms - 1) <= NEAR]
        rows.append(
            {
                "within": f"{fraction:.0%}",
                "ms": latency_ms,
                "best": top1[best],
                "million MACs": truth.macs[key] / 1e6,
                "network": key,
                "equally fast, mean": near.mean(),
                "equally fast, sd": near.std(ddof=1),
            }
        )
    counts = [{"networks": len(top1), "on the front": len(front), f"below {LOWEST_DRAWN:g} %": _below(top1)}]
    return {"Pareto front of NAS-Bench-Macro": rows, "Networks": counts}


def _below(top1: Floats) -> int:
    return int((top1 < LOWEST_DRAWN).sum())


def _draw(priced: PricedSpace, top1: Floats, front: Integers, options: Options) -> None:
    with options.draw("front", 620, 380) as (panel,):
        panel.scatter(priced.latency_ms, top1, s=3, color=MUTED, alpha=0.35, linewidths=0)
        panel.step(
            priced.latency_ms[front], top1[front], where="post", marker="o", markersize=4, color=ORANGE
        )
        panel.set(xlabel="predicted latency, ms", ylabel="published top-1, %", ylim=(LOWEST_DRAWN, 94))
        panel.grid()
