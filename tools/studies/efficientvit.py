"""EfficientViT's own claims on this processor: throughput, what its table 6 undoes, and what is memory-bound.

Liu et al. 2023: M5 against MobileNetV3-Large and M2 against MobileViT-XXS (abstract), figure 2, table 6.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from luts.format.files import read_json, write_atomically
from orchestrator.export.artifacts.spec import toolchain
from orchestrator.journal.runs import runs_root
from orchestrator.report.figures import write_operators_figure
from orchestrator.tasks.breakdown import break_down
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.target import Target
from search.spaces.plugins import load_plugin
from tools.studies import _efficientvit_words as words
from tools.studies._options import Options
from tools.studies.efficientvit_ablations import ABLATIONS
from tools.studies.efficientvit_ablations import BASE_NETWORK as ABLATED

THREADS = 1
MAX_KEPT_BYTES = 1 << 24
TRACE_MIN = 2.0
"""Minutes of a machine that the traces of three networks take."""


class _Kept(BaseModel):
    """What is read again of a part: `MeasuredNetworks.to_dict`."""

    models: list[dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """What is measured.

    Attributes:
        networks: By throughput and latency.
        pairs: Of them, with what the paper says of the first one's throughput over the second's.
        undone: Of the ablations.
        traced: As in figure 2.
        batches: Images a call of `networks`, and of the ablations.
    """

    networks: tuple[str, ...]
    pairs: tuple[words.Pair, ...]
    undone: tuple[str, ...]
    traced: tuple[str, ...]
    batches: tuple[tuple[int, ...], tuple[int, ...]]


LARGE, XXS = "timm:mobilenetv3_large_100", "mobilevit-xxs"
FULL = Scale(
    (*(f"efficientvit-m{size}" for size in range(6)), LARGE, XXS),
    (
        words.Pair("efficientvit-m5", LARGE, 1.452, "45.2 % more on its CPU"),
        words.Pair("efficientvit-m2", XXS, 3.7, "3.7 times as much on its CPU, 7.4 times in ONNX"),
    ),
    tuple(ABLATIONS),
    ("timm:swin_tiny_patch4_window7_224", "timm:deit_tiny_patch16_224", "timm:efficientvit_m4"),
    ((1, 8, 32), (1, 8)),
)
QUICK = Scale(
    ("efficientvit-m0", "timm:mobilenetv3_small_050"),
    (words.Pair("efficientvit-m0", "timm:mobilenetv3_small_050", 1.0, "nothing of this stand-in"),),
    ("hardswish",),
    ("efficientvit-m0",),
    ((1, 4), (1,)),
)


def quiet_minutes(budget_s: float) -> float:
    """Minutes of a quiet machine: the pairs' budget, half of it for the ablations, and the traces."""
    return 1.5 * budget_s / 60 + TRACE_MIN


def main(options: Options) -> str:
    """Measure what is not measured yet, in three parts; the section's text."""
    load_plugin("tools.studies.efficientvit_ablations")
    scale = QUICK if options.quick else FULL
    target = Target(options.device, threads=THREADS)
    print(
        f"about {quiet_minutes(options.budget_s):.0f} minutes of a quiet machine, exports before them aside"
    )

    def measured(
        names: Sequence[str], batches: Sequence[int], budget_s: float
    ) -> Callable[[], dict[str, Any]]:
        return lambda: measure_networks(
            names,
            target,
            batches=batches,
            budget_s=budget_s,
            self_test=not options.quick,
            progress=print,
        ).to_dict()

    ablations = (ABLATED, *(f"{ABLATED}-{change}" for change in scale.undone))
    parts = {
        "throughput": measured(scale.networks, scale.batches[0], options.budget_s),
        "ablations": measured(ablations, scale.batches[1], options.budget_s / 2),
    }
    told = f"{options.device} {target.variant.name} {scale} {options.budget_s}"
    kept = {name: _kept(name, told, make) for name, make in parts.items()}
    rows = {name: _rows(path) for name, path in kept.items()}
    traced = break_down(scale.traced, target, method="tracer", progress=print)
    options.pictures.mkdir(parents=True, exist_ok=True)
    write_operators_figure(
        options.pictures / "efficientvit_operators.png", traced.networks, f"{options.device}, one thread"
    )
    _draw(rows, options)
    text = _section(scale, rows, [network.to_dict() for network in traced.networks], target)
    for path in kept.values():
        path.unlink()
    return text


def _kept(name: str, told: str, make: Callable[[], dict[str, Any]]) -> Path:
    """The file of a part's figures, made now if an interrupted study of the same left none."""
    digest = hashlib.sha256(f"{told} {toolchain()}".encode()).hexdigest()[:12]
    path = runs_root() / f"study-efficientvit-{name}-{digest}.json"
    if not path.exists():
        write_atomically(path, json.dumps(make()).encode())
    return path


def _rows(path: Path) -> list[dict[str, Any]]:
    return read_json(path, _Kept, MAX_KEPT_BYTES, "remove it and run the study again").models


def _section(
    scale: Scale,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    traced: Sequence[Mapping[str, Any]],
    target: Target,
) -> str:
    lines = [
        f"| `{row['model']}` | {row['batch']} | {row['ms']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f}) "
        f"| {row['images_s']:.0f} ({row['images_s_low']:.0f} to {row['images_s_high']:.0f}) |"
        for row in rows["throughput"]
    ]
    undone = [
        f"| {'as it is' if row['model'] == ABLATED else row['model'].removeprefix(f'{ABLATED}-')} | {row['batch']} "
        f"| {row['ms']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f}) "
        f"| {row['images_s']:.0f} | {words.beside(rows['ablations'], row['model'], ABLATED, row['batch'])} |"
        for row in rows["ablations"]
    ]
    return f"""### EfficientViT's claims on this processor

{target.device}, {target.variant.name}, seeded weights; 95 % intervals in brackets. All of a table in one run,
interleaved.

{words.of_pairs(scale.pairs, rows["throughput"])}

| network | batch | ms a call | images a second |
|---|---|---|---|
{chr(10).join(lines)}

![Images a second by batch](pictures/efficientvit_throughput.png)

**Table 6.** M4 with one choice undone; throughput is relative to M4 at the same batch.

{words.of_ablations(scale.undone, rows["ablations"], ABLATED)}

| undone | batch | ms a call | images a second | of M4's throughput |
|---|---|---|---|---|
{chr(10).join(undone)}

**Figure 2.** {words.of_traces(traced)}

| network | ms | {" | ".join(words.TRACE_COLUMNS)} |
|---|---|{"---|" * len(words.TRACE_COLUMNS)}
{chr(10).join(words.trace_row(network) for network in traced)}

![What attention is made of, and operators against the roof](pictures/efficientvit_operators.png)
"""


def _draw(rows: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> None:
    from matplotlib.lines import Line2D

    from orchestrator.report.draw import BLUE, GREEN, INK, MUTED, ORANGE, PINK, RED, SKY, figure, legend

    names = list(dict.fromkeys(row["model"] for row in rows["throughput"]))
    colours = dict(zip(names, (SKY, BLUE, GREEN, PINK, MUTED, INK, ORANGE, RED), strict=False))
    with figure(760, 400) as drawn:
        panel = drawn.subplots()
        for name in names:
            own = [row for row in rows["throughput"] if row["model"] == name]
            middle = [row["images_s"] for row in own]
            ends = [
                [row["images_s"] - row["images_s_low"] for row in own],
                [row["images_s_high"] - row["images_s"] for row in own],
            ]
            style = "-" if name.startswith("efficientvit") else "--"
            panel.errorbar(
                [row["batch"] for row in own],
                middle,
                ends,
                marker="o",
                capsize=3,
                color=colours[name],
                linestyle=style,
            )
        batches = sorted({row["batch"] for row in rows["throughput"]})
        panel.set(xscale="log", yscale="log", xlabel="images a call", ylabel="images a second")
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
        low = min(row["images_s_low"] for row in rows["throughput"])
        high = max(row["images_s_high"] for row in rows["throughput"])
        ticks = [step * 10**power for power in range(6) for step in (1, 2, 5)]
        shown = [tick for tick in ticks if low / 1.6 <= tick <= high * 1.6]
        panel.set_yticks(shown, [str(tick) for tick in shown])
        panel.grid(axis="y")
        legend(drawn, [Line2D([], [], color=colours[name], marker="o", label=name) for name in names], 760)
        options.save(drawn, "efficientvit_throughput")
