"""`bench measure` and its modes, `bench blocks` and `bench breakdown`: latency on a device."""

from __future__ import annotations

import typer

from orchestrator.cli.options import add_command
from orchestrator.cli.output import PICTURES
from orchestrator.tasks import breakdown
from orchestrator.tasks.blocks import compare_mixers
from orchestrator.tasks.breakdown import break_down
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.runtimes import measure_runtimes
from orchestrator.tasks.suite import run_suite
from orchestrator.tasks.sustained import measure_sustained


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        "measure",
        measure_networks,
        "bench measure autovit-xxs-paper timm:mobilenetv3_small_100 --device host",
        "bench measure efficientvit-m5 --device host --batch 1,8,32",
        rows="models",
    )
    suite = "bench measure suite autovit-table2 --device host"
    add_command(app, "measure suite", run_suite, suite, pictures=PICTURES)
    sustained = "bench measure sustained autovit-xxs-paper --device pixel8 --duration 10m"
    add_command(app, "measure sustained", measure_sustained, sustained, rows="points", pictures=PICTURES)
    runtimes = "bench measure runtimes timm:mobilenetv3_small_100 --device host --runtime onnx,litert"
    add_command(app, "measure runtimes", measure_runtimes, runtimes, rows="models")
    blocks = "bench blocks --device host --resolution 16,32 -o blocks.png"
    add_command(app, "blocks", compare_mixers, blocks, pictures=(".png",))
    bars = "bench breakdown autovit-xxs-paper timm:deit_tiny_patch16_224 --device host -o bars.svg"
    add_command(app, "breakdown", break_down, bars, pictures=breakdown.PICTURES)
