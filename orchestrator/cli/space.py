"""`bench space`: search spaces, their sizes, and the latencies that they can reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

from luts.format.table import Column
from orchestrator.cli.options import open_store, with_options
from orchestrator.cli.output import JsonOption, emit_json, emit_rows
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.space import CONFIDENCE, SAMPLES, reachable_latencies, sampled_ranges
from search.spaces import Space, get_space, list_archs, list_spaces

app = typer.Typer(help="Search spaces.", no_args_is_help=True)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List all spaces with their sizes."""
    columns = [
        Column("space", "space"),
        Column("architectures", "architectures"),
        Column("stages", "stages"),
        Column("resolutions", "resolutions"),
        Column("block_keys", "block keys"),
        Column("named", "named architectures", spare=1),
    ]
    emit_rows("", columns, [_facts(space) for space in list_spaces()], as_json)


def _facts(space: Space) -> dict[str, Any]:
    return {
        "space": space.name,
        "architectures": space.size(),
        "stages": " or ".join(str(n) for n in space.stage_counts),
        "resolutions": " ".join(str(r) for r in space.resolutions),
        "block_keys": len(space.block_specs()),
        "named": " ".join(name for name, arch in list_archs().items() if arch.space == space.name),
    }


@dataclass(frozen=True, kw_only=True)
class ShowOptions(StoreOptions):
    """Options of `bench space show`."""

    space: str = argument(REQUIRED, "Name of a space.", metavar="SPACE")
    lut: str | None = option(None, "Also show the latencies that can be reached by this LUT.")
    sharing: bool = option(False, "Also show how many parameters subnets share.")


@app.command("show")
@with_options
def show_command(options: ShowOptions, as_json: JsonOption = False) -> None:
    """Show a space's choices, its size, and its ranges of parameters, MACs and latency by a LUT."""
    shown, lut, sharing = get_space(options.space), options.lut, options.sharing
    ranges = sampled_ranges(shown)
    facts = _facts(shown) | {
        "digest": shown.digest,
        "heads": " ".join(shown.heads),
        "params_sampled": list(ranges.params),
        "conv_linear_macs_sampled": list(ranges.conv_linear_macs),
    }
    store = open_store(options)
    reach = [asdict(row) for row in reachable_latencies(shown, store.load(lut), lut)] if lut else []
    shared = _sharing(shown) if sharing else []
    if as_json:
        facts["stages"] = [
            {"stage": stage.name, "kind": stage.kind}
            | {name: list(values) for name, values in stage.choices}
            | {"fixed": dict(stage.fixed)}
            for stage in shown.stages
        ]
        emit_json(facts | ({"reach": reach} if lut else {}) | ({"sharing": shared} if sharing else {}))
        return
    _show_choices(shown)
    print(
        f"resolutions {facts['resolutions']}, heads {facts['heads']}, stages {facts['stages']}, "
        f"{facts['block_keys']} block keys\n"
        f"{SAMPLES} random architectures at {shown.default_resolution} px: "
        f"{_range(ranges.params, 1e6)} M parameters, {_range(ranges.conv_linear_macs, 1e9)} G conv+linear MACs"
    )
    if lut:
        columns = [
            Column("what", "exact, by " + lut),
            Column("latency_ms", "ms", 3),
            Column("latency_high_ms", f"at most ms, {CONFIDENCE:.0%}", 3),
            Column("params", "parameters", counted=True),
            Column("macs", "conv+linear MACs", counted=True),
        ]
        emit_rows("", columns, reach, False)
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


def _show_choices(space: Space) -> None:
    rows = [
        {
            "stage": stage.name,
            "choices": "  ".join(f"{n} {{{', '.join(f'{v:g}' for v in vs)}}}" for n, vs in stage.choices),
            "fixed": "  ".join(f"{n} {v:g}" for n, v in stage.fixed),
        }
        for stage in space.stages
    ]
    columns = [Column("stage", "stage"), Column("choices", "searched"), Column("fixed", "fixed")]
    emit_rows(f"{space.name}: {space.size():,} architectures", columns, rows, False)


def _range(ends: Sequence[int], unit: float) -> str:
    return " to ".join(f"{end / unit:.3f}" for end in ends)


def _sharing(space: Space) -> list[dict[str, Any]]:
    """Return the sharing of one supernet of the space, and of three for three ranges of parameters."""
    from search.supernet.inherit import partition, sharing

    return [
        {"supernet": f"{index + 1} of {count}"} | asdict(sharing(space, archs))
        for count in (1, 3)
        for index, archs in enumerate(partition(space, count))
    ]
