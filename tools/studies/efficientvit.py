"""EfficientViT's claims on this processor: throughput of pairs, the ablations of table 6, memory-bound operators.

Liu et al. 2023: M5 makes 1.45 times the images per second of MobileNetV3-Large on their CPU, M2 3.7 times those of
MobileViT-XXS (abstract); figure 2; table 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report.draw import write_figure
from orchestrator.report.figures import operators_figure
from orchestrator.tasks.breakdown import BreakdownCommand, break_down
from orchestrator.tasks.measured import MeasuredNetwork
from search.spaces.plugins import load_plugin
from tools.studies.efficientvit_ablations import ABLATIONS, BASE_NETWORK
from tools.studies.shared import Options, draw_lines
from tools.tables import Interval, Tables, log

load_plugin("tools.studies.efficientvit_ablations")

RIVALS = {"efficientvit-m5": "timm:mobilenetv3_large_100", "efficientvit-m2": "mobilevit-xxs"}
NETWORKS = (*(f"efficientvit-m{size}" for size in range(6)), *RIVALS.values())
TRACED = ("timm:swin_tiny_patch4_window7_224", "timm:deit_tiny_patch16_224", "timm:efficientvit_m4")
QUICK_RIVALS = {"efficientvit-m0": "timm:mobilenetv3_small_050"}
BATCHES, ABLATION_BATCHES, QUICK_BATCHES = (1, 8, 32), (1, 8), (1, 4)
PARTS = {
    "matrix work": ("projection", "product"),
    "softmax": ("softmax",),
    "reshape": ("reshape",),
    "the rest": ("normalisation", "activation", "elementwise", "other"),
}
"""Columns of figure 2, and the parts of attention that each sums."""


def main(options: Options) -> Tables:
    """Measure networks and ablations, each in one interleaved run, and trace three networks by operator."""
    rivals = QUICK_RIVALS if options.quick else RIVALS
    names = [name for pair in rivals.items() for name in pair] if options.quick else list(NETWORKS)
    ablations = ["hardswish"] if options.quick else list(ABLATIONS)
    ablated = [BASE_NETWORK, *(f"{BASE_NETWORK}-{name}" for name in ablations)]
    batches, ablation_batches = (QUICK_BATCHES, (1,)) if options.quick else (BATCHES, ABLATION_BATCHES)
    networks = options.measure(names, batches=batches)
    undone = options.measure(ablated, batches=ablation_batches, budget_s=options.budget_s / 2)
    traced = break_down(
        BreakdownCommand(
            networks=names[:1] if options.quick else TRACED, target=options.target, method="tracer"
        ),
        log,
    )
    operators = operators_figure(traced.networks, f"{options.device}, one thread")
    write_figure(options.pictures / "efficientvit_operators.png", operators)
    rows = [_row(network) for network in networks]
    with options.draw("efficientvit_throughput", 760, 400) as (panel,):
        draw_lines(panel, rows, "batch", "images a second", "network")
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
    return {
        "Throughput": rows,
        "Throughput of pairs": [
            {"network": fast, "against": other, "batch": batch, "ratio": ratio(networks, fast, other, batch)}
            for fast, other in rivals.items()
            for batch in batches
        ],
        "Ablations of M4 (table 6)": [
            _row(network) | {"of M4's throughput": ratio(undone, network.model, BASE_NETWORK, network.batch)}
            for network in undone
        ],
        "Operators (figure 2), % of the traced time": [trace_row(each.to_dict()) for each in traced.networks],
    }


def ratio(networks: Sequence[MeasuredNetwork], name: str, other: str, batch: int) -> Interval:
    """Return the throughput of one network over another's at a batch size.

    Both were measured relative to one reference in the same rounds. Their log intervals are added in quadrature,
    which is too wide where disturbances are shared.
    """
    one, two = (next(n for n in networks if (n.model, n.batch) == (each, batch)) for each in (name, other))
    if one is two:
        return Interval(1.0, 1.0, 1.0)
    value = two.ratio / one.ratio
    below = math.hypot(math.log(one.ratio_high / one.ratio), math.log(two.ratio / two.ratio_low))
    above = math.hypot(math.log(one.ratio / one.ratio_low), math.log(two.ratio_high / two.ratio))
    return Interval(value, value * math.exp(-below), value * math.exp(above))


def trace_row(network: Mapping[str, Any]) -> dict[str, object]:
    """Return a network's row of figure 2: attention by kind of work, and operators bound by memory (roofline)."""
    traced = network["by"]["tracer"]
    attention = {part["part"]: part["ms"] for part in traced["parts"] if part["kind"] == "attention"}
    row: dict[str, object] = {"network": network["model"], "ms": traced["whole_ms"]}
    for title, parts in PARTS.items():
        row[f"attention: {title}"] = (
            100 * sum(attention.get(part, 0.0) for part in parts) / traced["whole_ms"]
        )
    bound, all_ms = (math.fsum(part[key] for part in traced["parts"]) for key in ("memory_bound_ms", "ms"))
    roof = traced["roof"]
    return row | {"memory-bound": 100 * bound / all_ms, "GMAC/s": roof["gmacs_s"], "GB/s": roof["gbytes_s"]}


def _row(network: MeasuredNetwork) -> dict[str, object]:
    per_s = network.images_s
    return {
        "network": network.model,
        "batch": network.batch,
        "ms": Interval(network.ms, network.ci_low, network.ci_high),
        "images a second": Interval(*per_s),
    }
