"""Twelve networks with the same weights in ExecuTorch, ONNX Runtime and LiteRT, interleaved, on one thread."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.tasks.runtimes import InRuntime, MeasuredRuntimes, measure_runtimes
from orchestrator.tasks.target import Target
from tools.studies._options import Options

NETWORKS = (
    "autovit-xxs-paper",
    "mobilevit-xxs",
    "efficientvit-m0",
    "efficientvit-m1",
    "timm:mobilenetv3_small_100",
    "timm:mobilenetv3_large_100",
    "timm:mobilenetv2_100",
    "timm:tf_efficientnet_lite0",
    "timm:tf_efficientnet_lite1",
    "timm:resnet18",
    "timm:deit_tiny_patch16_224",
    "timm:ghostnet_100",
)
QUICK = NETWORKS[:1]
RUNTIMES = ("onnx", "litert")


def main(options: Options) -> str:
    """Measure; the section's text."""
    measured = measure_runtimes(
        QUICK if options.quick else NETWORKS,
        Target(options.device, runtime="executorch", threads=1),
        RUNTIMES,
        budget_s=options.budget_s,
        self_test=not options.quick,
        progress=print,
    )
    return section(measured)


def section(measured: MeasuredRuntimes) -> str:
    """Latencies side by side, how far outputs are apart, and what the order agrees in."""
    rows: dict[str, dict[str, InRuntime]] = {}
    for row in measured.rows:
        rows.setdefault(row.model, {})[row.runtime] = row
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    taus = "; ".join(f"{a} and {b} {tau:.3f}" for (a, b), tau in measured.tau.items())
    left_out = "".join(f"\nLeft out: {name} ({reason})." for name, reason in measured.failures.items())
    return f"""### The same weights in three runtimes

Milliseconds on one thread of this machine, 95 % intervals in brackets, all in one interleaved run; seeded weights,
fp32. {versions}. Outputs: largest difference to ExecuTorch's, of their scale.{left_out}

| network | ExecuTorch | ONNX Runtime | to ExecuTorch | outputs | LiteRT | to ExecuTorch | outputs |
|---|---|---|---|---|---|---|---|
{chr(10).join(_line(name, cells) for name, cells in rows.items())}

Kendall's tau between the latencies of {len(rows)} networks: {taus or "too few networks"}.
"""


def _line(name: str, cells: Mapping[str, InRuntime]) -> str:
    others = " | ".join(
        f"{_ms(cells[r])} | {cells[r].ratio:.2f} | {cells[r].difference:.0e}" for r in RUNTIMES
    )
    return f"| `{name}` | {_ms(cells['executorch'])} | {others} |"


def _ms(row: InRuntime) -> str:
    return f"{row.ms:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"
