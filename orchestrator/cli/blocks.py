"""`bench blocks`: token mixers side by side on a device, ranked at equal width and resolution."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from luts.format.table import Column
from orchestrator.cli.options import (
    AccessOptions,
    DeviceOption,
    SelfTestOption,
    VariantOptions,
    WorkersOption,
    target_of,
    with_options,
)
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, shown_progress, tell
from orchestrator.cli.output_files import output_files, write_table
from orchestrator.plan.mixers import MIXERS
from orchestrator.tasks.mixers import MixerComparison, compare_mixers
from orchestrator.tasks.parsing import parse_budget, parse_resolutions

OUTPUTS = (".png", ".json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("blocks")(with_options(blocks_command))


def blocks_command(
    device: DeviceOption,
    *,
    resolution: Annotated[str, typer.Option(help="Sides of the maps, with commas.")] = "16,32",
    width: Annotated[int, typer.Option(help="Channels of all maps.")] = 64,
    blocks: Annotated[str | None, typer.Option(help=f"Some of {','.join(MIXERS)}; all.")] = None,
    window: Annotated[int, typer.Option(help="Side of attention's windows in pixels.")] = 8,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="A .png to draw or a .json to write; repeatable."),
    ] = None,
    variant: VariantOptions,
    budget: Annotated[str, typer.Option(help="Time after which no further pass is begun.")] = "5m",
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank token mixers, and ViT layers that drop tokens, by latency at equal width and resolution.

    What one more of each costs in a network, in one interleaved measurement: each block alone, and chains of one
    and of three copies, whose difference is the cost of two. Input and output drop out of it; the block's own
    change of layout does not.
    """
    paths = output_files(output, OUTPUTS)

    def write(comparison: MixerComparison) -> str:
        for path in paths:
            _write(path, comparison, _title(device, comparison))
        return " ".join(map(str, paths)) or "measured"

    with shown_progress() as progress:
        comparison = compare_mixers(
            target_of(device, variant, access),
            blocks=list(dict.fromkeys(blocks.split(","))) if blocks else list(MIXERS),
            width=width,
            resolutions=parse_resolutions(resolution) or (),
            window=window,
            budget_s=parse_budget(budget),
            seed=seed,
            self_test=self_test,
            workers=workers,
            keep=write,
            progress=progress,
        )
    if as_json:
        emit_json(comparison.to_dict())
    else:
        _show(_title(device, comparison), comparison)


def _title(device: str, comparison: MixerComparison) -> str:
    setup = comparison.setup
    return f"{device}, {setup.variant.name}, {comparison.width} channels{setup.warning}"


def _write(path: Path, comparison: MixerComparison, title: str) -> None:
    document = comparison.to_dict()
    if path.suffix == ".json":
        write_table(path, document)
        return
    from orchestrator.report.draw import save_png
    from orchestrator.report.figures import blocks_figure

    save_png(blocks_figure(document["blocks"], title), path)


_COLUMNS = [
    Column("tokens", "tokens N"),
    Column("rank", "rank"),
    Column("block", "block"),
    Column("ms", "ms", 4),
    Column("ms_low", "95 % low", 4),
    Column("ms_high", "high", 4),
    Column("alone_ms", "alone ms", 4, spare=3),
    Column("params", "parameters", counted=True, spare=2),
    Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=2),
    Column("total_macs", "all MACs", counted=True, spare=4),
    Column("ns_per_mac", "ns per MAC", 4, spare=5),
    Column("complexity", "MACs in tokens N, channels d", spare=6),
]


def _show(title: str, comparison: MixerComparison) -> None:
    for family, of in (("mixer", "token mixers"), ("layer", "layers of a ViT")):
        if rows := [asdict(cost) for cost in comparison.blocks if cost.family == family]:
            emit_rows(f"{title}: {of}", _COLUMNS, rows, False)
    for cost in comparison.blocks:
        if cost.outside:
            tell(
                f"{cost.block} at {cost.resolution} px: outside of its {cost.delegates} delegates, in three "
                f"copies: {cost.outside}"
            )
    tell(
        "ms: what one more copy costs in a chain, with as many tokens as the one before leaves; "
        "alone: a model of one block, with its input and output\n"
        f"noise floor {100 * comparison.setup.noise_floor:.2f} % between two loads"
    )
