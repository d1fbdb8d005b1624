"""Twelve networks with the same weights in ExecuTorch, ONNX Runtime and LiteRT, interleaved, on one thread."""

from __future__ import annotations

from orchestrator.tasks.runtimes import RuntimesCommand, measure_runtimes
from tools.studies.shared import Options
from tools.tables import Interval, Tables, log

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


def main(options: Options) -> Tables:
    """Measure; `outputs` is the largest difference to ExecuTorch's outputs, relative to their scale."""
    measured = measure_runtimes(
        RuntimesCommand(
            networks=NETWORKS[:1] if options.quick else NETWORKS,
            target=options.target,
            threads=options.target.threads,
            budget_s=options.budget_s,
            self_test=not options.quick,
        ),
        log,
    )
    rows = [
        {
            "network": row.model,
            "runtime": row.runtime,
            "ms": Interval(row.ms, row.ci_low, row.ci_high),
            "to ExecuTorch": row.ratio,
            "outputs": row.difference,
        }
        for row in measured.rows
    ]
    return {
        "The same weights in three runtimes": rows,
        "Kendall's tau of latencies": [
            {"runtimes": f"{a}, {b}", "tau": value} for (a, b), value in measured.tau.items()
        ],
        "Versions": [{"runtime": name, "version": version} for name, version in measured.versions.items()],
    }
