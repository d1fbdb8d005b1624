"""`bench space` and `bench arch`: what can be searched, and what one network costs on paper."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Annotated

import typer

from luts.errors import UsageError
from luts.model import LatencyModel
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows
from orchestrator.coverage import covered_space
from orchestrator.paths import lut_store
from search.algorithms import Budget, LutPrice, reachable
from search.blocks import count
from search.spaces import (
    Arch,
    Published,
    Space,
    get_space,
    list_archs,
    list_published,
    list_spaces,
    load_arch,
)

SAMPLES = 2000
"""Random architectures behind the parameter range that is shown."""

CONFIDENCE = 0.95
"""Of the upper bounds that are shown."""

space_app = typer.Typer(help="Search spaces.", no_args_is_help=True)
arch_app = typer.Typer(help="Architectures.", no_args_is_help=True)


@space_app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """All spaces with their sizes."""
    columns = [
        Column("space", "space"),
        Column("architectures", "architectures"),
        Column("stages", "stages"),
        Column("resolutions", "resolutions"),
        Column("block_keys", "block keys"),
        Column("named", "named architectures"),
    ]
    emit_rows("", columns, [_space_row(space) for space in list_spaces()], as_json)


def _space_row(space: Space) -> dict[str, object]:
    return {
        "space": space.name,
        "architectures": space.size(),
        "stages": " or ".join(str(n) for n in space.stage_counts),
        "resolutions": " ".join(str(r) for r in space.resolutions),
        "block_keys": len(space.block_specs()),
        "named": " ".join(name for name, arch in list_archs().items() if arch.space == space.name),
    }


@space_app.command("show")
def show_command(
    space: Annotated[str, typer.Argument(help="Name of a space.")],
    lut: Annotated[
        str | None, typer.Option(help="Show the latencies that can be reached by this LUT.")
    ] = None,
    luts: Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs.")] = None,
    sharing: Annotated[
        bool, typer.Option("--sharing", help="Show how much its subnets share, in one supernet and in three.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """A space's choices, its size, the range of its parameters and MACs, and of its latency by a LUT."""
    found = get_space(space)
    stages = [
        {"stage": stage.name, "kind": stage.kind}
        | {name: list(values) for name, values in stage.choices}
        | {"fixed": dict(stage.fixed)}
        for stage in found.stages
    ]
    rng = random.Random(0)
    costs = [count(found.sample(rng, (found.default_resolution,)).blocks()) for _ in range(SAMPLES)]
    params = sorted(cost[0] for cost in costs)
    macs = sorted(cost[1].conv_linear for cost in costs)
    facts = _space_row(found) | {
        "digest": found.digest,
        "heads": " ".join(found.heads),
        "params_sampled": [params[0], params[-1]],
        "conv_linear_macs_sampled": [macs[0], macs[-1]],
    }
    reached = _reached(space, lut, luts) if lut else []
    shared = _sharing(found) if sharing else []
    if as_json:
        extras = ({"reach": reached} if lut else {}) | ({"sharing": shared} if sharing else {})
        emit_json(facts | {"stages": stages} | extras)
        return
    shown = [
        {
            "stage": row["stage"],
            "choices": "  ".join(f"{n} {{{', '.join(f'{v:g}' for v in vs)}}}" for n, vs in stage.choices),
            "fixed": "  ".join(f"{n} {v:g}" for n, v in stage.fixed),
        }
        for row, stage in zip(stages, found.stages, strict=True)
    ]
    emit_rows(
        f"{space}: {found.size():,} architectures",
        [Column("stage", "stage"), Column("choices", "searched"), Column("fixed", "fixed")],
        shown,
        False,
    )
    print(
        f"resolutions {facts['resolutions']}, heads {facts['heads']}, stages {facts['stages']}, "
        f"{facts['block_keys']} block keys\n"
        f"{SAMPLES} random architectures at {found.default_resolution} px: "
        f"{params[0] / 1e6:.3f} to {params[-1] / 1e6:.3f} M parameters, "
        f"{macs[0] / 1e9:.3f} to {macs[-1] / 1e9:.3f} G conv+linear MACs"
    )
    if lut:
        columns = [
            Column("what", "exact, by " + lut),
            Column("latency_ms", "ms", 3),
            Column("latency_high_ms", f"at most ms, {CONFIDENCE:.0%}", 3),
            Column("params", "parameters"),
            Column("macs", "conv+linear MACs"),
        ]
        emit_rows("", columns, reached, False)
    if sharing:
        columns = [
            Column("supernet", "supernet"),
            Column("subnets", "random subnets"),
            Column("smallest", "least parameters"),
            Column("largest", "most parameters"),
            Column("shared", "shared by all"),
            Column("efficiency", "sharing efficiency E", 3),
        ]
        emit_rows("", columns, shared, False)


def _reached(name: str, lut: str, luts: Path | None) -> list[dict[str, object]]:
    """The fastest and the slowest architecture of the space, and the most MACs that some latencies buy."""
    store = lut_store(luts)
    table = store.load(store.resolve(lut).path)
    if table.meta.space != name:
        raise UsageError(f"{lut} is of space {table.meta.space}, not of {name}; name a matching pair")
    price = LutPrice(LatencyModel.from_lut(table), "")
    reach = reachable(
        covered_space(table), price, Budget(latency_ms=1, cautious=False, confidence=CONFIDENCE)
    )
    front = reach.most_macs
    between = [front[round(share * (len(front) - 1))] for share in (0.25, 0.5, 0.75)]
    rows = [("fastest", reach.smallest), *(("most MACs for its latency", corner) for corner in between)]
    return [
        {
            "what": what,
            "latency_ms": corner.priced.latency_ms,
            "latency_high_ms": corner.priced.latency_high_ms,
            "params": corner.priced.params,
            "macs": corner.priced.macs,
            "arch": corner.arch.to_json(),
        }
        for what, corner in [*rows, ("slowest", reach.largest)]
    ]


def _sharing(space: Space) -> list[dict[str, object]]:
    """Of one supernet for the whole space, and of three for as many ranges of parameters."""
    from search.supernet.sharing import partition, sharing

    return [
        {"supernet": f"{index + 1} of {count}"} | dataclasses.asdict(sharing(space, archs))
        for count in (1, 3)
        for index, archs in enumerate(partition(space, count))
    ]


@arch_app.command("show")
def arch_command(
    arch: Annotated[str, typer.Argument(help="Named network or JSON file.")], as_json: JsonOption = False
) -> None:
    """Parameters, MACs (both counts) and block keys of a network."""
    found = list_published().get(arch) or load_arch(arch)
    rows = block_rows(found)
    params, macs = count(found.blocks())
    if as_json:
        totals = {"params": params, "conv_linear_macs": macs.conv_linear, "all_macs": macs.total}
        emit_json({**_identity(found), **totals, "blocks": rows})
        return
    columns = [
        Column("key", "block"),
        Column("params", "parameters"),
        Column("conv_linear_macs", "conv+linear MACs"),
        Column("all_macs", "all MACs"),
    ]
    origin = found.space if isinstance(found, Arch) else found.source
    emit_rows(f"{arch} ({origin}, {found.resolution} px)", columns, rows, False)
    print(
        f"{params / 1e6:.3f} M parameters, {macs.conv_linear / 1e9:.3f} G conv+linear MACs "
        f"(the papers' FLOPs), {macs.total / 1e9:.3f} G with attention's products"
    )
    if isinstance(found, Arch):
        print(found.to_json())


def _identity(network: Arch | Published) -> dict[str, object]:
    """What says which network it is."""
    if isinstance(network, Published):
        return {"published": network.name, "source": network.source}
    return {"arch": get_space(network.space).to_document(network), "digest": network.digest}


@arch_app.command("list")
def arch_list_command(as_json: JsonOption = False) -> None:
    """The named networks: those of a space, and published ones that are of none."""
    rows = [
        {"arch": name, "space": arch.space, "resolution": arch.resolution, "params": arch.params()}
        for name, arch in list_archs().items()
    ] + [
        {"arch": name, "space": None, "resolution": network.resolution, "params": network.params()}
        for name, network in list_published().items()
    ]
    columns = [Column("arch", "architecture"), Column("space", "space"), Column("resolution", "px")]
    emit_rows("", [*columns, Column("params", "parameters")], rows, as_json)


@arch_app.command("sample")
def arch_sample_command(
    space: Annotated[str, typer.Argument(help="Name of a space.")],
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Print the JSON of a random architecture."""
    print(get_space(space).sample(random.Random(seed)).to_json())


def block_rows(arch: Arch | Published) -> list[dict[str, object]]:
    """One row a block, in order."""
    rows: list[dict[str, object]] = []
    for block in arch.blocks():
        macs = block.macs()
        rows.append(
            {
                "key": block.key,
                "params": block.params(),
                "conv_linear_macs": macs.conv_linear,
                "all_macs": macs.total,
            }
        )
    return rows


def parse_resolutions(text: str | None) -> tuple[int, ...] | None:
    """`256` or `192,256` as numbers; None stays None."""
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"--resolution {text!r}: expected numbers, e.g. 256 or 192,256") from error
