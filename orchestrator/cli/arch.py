"""`bench arch`: parameters, MACs and blocks of networks."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from luts.format.table import Column
from orchestrator.cli.options import with_options
from orchestrator.cli.output import JsonOption, emit_json, emit_rows
from orchestrator.export.lower.counting import Counts
from orchestrator.tasks.networks import Network, count_timm, read_network
from orchestrator.tasks.options import REQUIRED, argument, option
from search.blocks import BlockSpec, count
from search.spaces import Arch, Published, get_space, list_archs, list_published

app = typer.Typer(help="Architectures.", no_args_is_help=True)


@app.command("show")
def show_command(
    arch: Annotated[str, typer.Argument(help="Network by name, timm:NAME, or an architecture's JSON file.")],
    as_json: JsonOption = False,
) -> None:
    """Show parameters, MACs (both counts) and block keys of a network; of timm networks the sums only."""
    network = read_network(arch)
    if isinstance(network, str):
        counts, resolution = count_timm(network)
        blocks: tuple[BlockSpec, ...] = ()
    else:
        blocks, resolution = network.blocks(), network.resolution
        params, macs = count(blocks)
        counts = Counts(params, macs.conv_linear, macs.total)
    origin, identity = _identity(network)
    rows = [
        {
            "key": block.key,
            "params": block.params(),
            "conv_linear_macs": block.macs().conv_linear,
            "all_macs": block.macs().total,
        }
        for block in blocks
    ]
    if as_json:
        emit_json({**identity, "resolution": resolution, **asdict(counts), "blocks": rows})
        return
    columns = [
        Column("key", "block", key=True),
        Column("params", "parameters", counted=True),
        Column("conv_linear_macs", "conv+linear MACs", counted=True),
        Column("all_macs", "all MACs", counted=True),
    ]
    title = f"{arch} ({origin}, {resolution} px)"
    if rows:
        emit_rows(title, columns, rows, False)
    else:
        print(title)
    print(
        f"{counts.params / 1e6:.3f} M parameters, {counts.conv_linear_macs / 1e9:.3f} G conv+linear MACs "
        f"(the papers' FLOPs), {counts.all_macs / 1e9:.3f} G with attention's products"
    )
    if isinstance(network, Arch):
        print(network.to_json())


def _identity(network: Network) -> tuple[str, dict[str, object]]:
    """Return where a network comes from, and its identity."""
    if isinstance(network, str):
        return "timm", {"timm": network.removeprefix("timm:")}
    if isinstance(network, Published):
        return network.source, {"published": network.name, "source": network.source}
    return network.space, {"arch": network.to_document(), "digest": network.digest}


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the named networks: architectures of spaces, and published networks."""
    named: dict[str, Arch | Published] = {**list_archs(), **list_published()}
    rows = [
        {
            "arch": name,
            "space": network.space if isinstance(network, Arch) else None,
            "resolution": network.resolution,
            "params": network.params(),
        }
        for name, network in named.items()
    ]
    columns = [Column("arch", "architecture"), Column("space", "space"), Column("resolution", "px")]
    emit_rows("", [*columns, Column("params", "parameters", counted=True)], rows, as_json)


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of `bench arch sample`."""

    space: str = argument(REQUIRED, "Name of a space.", metavar="SPACE")
    seed: int = option(0, "Random seed.")
    resolution: int | None = option(None, "Side of the input image in pixels.", shown="random")


@app.command("sample")
@with_options
def sample_command(options: SampleOptions) -> None:
    """Print the JSON of a random architecture."""
    whole = get_space(options.space)
    part = whole if options.resolution is None else whole.restricted((options.resolution,))
    print(part.sample(random.Random(options.seed)).to_json())
