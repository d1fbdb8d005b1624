"""`bench blocks`: token mixers side by side on a device, ranked at equal width and resolution."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.errors import BlocktimeError, UsageError
from luts.estimate.rounds import sessions
from luts.samples import kept_samples
from orchestrator.cli.exports import files_that_can_be
from orchestrator.cli.measuring import check_device, measure_files
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BackendOption,
    DeviceOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    parse_access,
    parse_budget,
    parse_variant,
)
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows, say
from orchestrator.cli.spaces import parse_resolutions
from orchestrator.devices.discover import resolve
from orchestrator.export.cache import ArtifactCache
from orchestrator.measure.contenders import CONTENDERS, Contender, contenders, cost_of_copy
from orchestrator.measure.link import ModelFile
from orchestrator.measure.log import read_log
from orchestrator.measure.plan import model_id
from orchestrator.measure.runs import Run
from orchestrator.measure.samples import samples_table
from orchestrator.measure.session import Measurement, default_threads
from orchestrator.variant import Variant
from orchestrator.winner import write_text

OUTPUTS = (".png", ".json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("blocks")(blocks_command)


def blocks_command(
    device: DeviceOption,
    resolution: Annotated[str, typer.Option(help="Sides of the maps, with commas.")] = "16,32",
    width: Annotated[int, typer.Option(help="Channels of all maps.")] = 64,
    blocks: Annotated[str | None, typer.Option(help=f"Some of {','.join(CONTENDERS)}; all.")] = None,
    window: Annotated[int, typer.Option(help="Side of attention's windows in pixels.")] = 8,
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="A .png to draw or a .json to write; repeatable.")
    ] = None,
    runtime: RuntimeOption = "executorch",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    budget: Annotated[str, typer.Option(help="Time after which no further pass is begun.")] = "5m",
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank token mixers, and ViT layers that drop tokens, by latency at equal width and resolution.

    What one more of each costs in a network, in one interleaved measurement: each block alone, and chains of one
    and of three copies, whose difference is the cost of two. Input and output drop out of it; the block's own
    change of layout does not.
    """
    parse_budget(budget)
    wrong = next((path for path in out or [] if path.suffix not in OUTPUTS), None)
    if wrong is not None:
        raise UsageError(f"--out {wrong}: expected a name that ends in {' or '.join(OUTPUTS)}")
    names = list(dict.fromkeys(blocks.split(","))) if blocks else list(CONTENDERS)
    chosen, refused = contenders(names, width, parse_resolutions(resolution) or (), window)
    variant = parse_variant(device, runtime, backend, precision, threads)
    found = resolve(device, parse_access(agent, allow, app))
    with found:
        if threads is None and device != "host":
            variant = default_threads(found, variant)
        check_device(found, variant)
        able, files, failed = _files(variant, chosen, workers)
        refused += failed
        for line in refused:
            say(line)
        if not able:
            raise BlocktimeError(
                "no block is left to measure; choose other --blocks, --resolution or --window"
            )
        reference = model_id(able[0].short)
        measurement, run = measure_files(found, variant, files, reference, budget, seed)
    rows = _rows(variant, able, measurement, run)
    document = {
        "device": measurement.hello.device.model_dump(),
        "variant": variant.name,
        "simulated": measurement.header.simulated,
        "created": measurement.header.created,
        "width": width,
        "noise_floor": measurement.estimates.noise_floor,
        "left_out": refused + _broken(able, measurement),
        "blocks": rows,
    }
    title = f"{device}, {variant.name}, {width} channels"
    if measurement.header.simulated:
        title += ", SIMULATED: this is no such device"
    for path in out or []:
        _write(path, document, title)
    run.finish(" ".join(map(str, out or [])) or "measured")
    for line in _broken(able, measurement):
        say(line)
    if as_json:
        emit_json(document)
    else:
        _show(title, rows, measurement)


def _files(
    variant: Variant, chosen: Sequence[Contender], workers: int | None
) -> tuple[list[Contender], dict[str, ModelFile], list[str]]:
    """Blocks whose models there are, these models by id, and a line for each block that can't be exported."""
    specs = {
        name: variant.export_spec(keys) for contender in chosen for name, keys in contender.models.items()
    }
    files, reasons = files_that_can_be(variant, specs, workers)
    able = [contender for contender in chosen if not reasons.keys() & contender.models.keys()]
    lines = []
    for contender in chosen:
        if contender not in able:
            reason = next(reasons[name] for name in contender.models if name in reasons)
            lines.append(f"{contender.name} left out at {contender.block.resolution} px: {reason}")
    return able, {name: files[name] for contender in able for name in contender.models}, lines


def _broken(able: Sequence[Contender], measurement: Measurement) -> list[str]:
    """A line for each block of which the device can't run a model."""
    return [
        f"{contender.name} left out at {contender.block.resolution} px: the device can't run {keys[0]}: "
        f"{measurement.failures[name]}"
        for contender in able
        for name, keys in contender.models.items()
        if name in measurement.failures
    ]


def _rows(
    variant: Variant, able: Sequence[Contender], measurement: Measurement, run: Run
) -> list[dict[str, Any]]:
    """One of each block and resolution, the fastest of a resolution first."""
    runnable = [c for c in able if not c.models.keys() & measurement.failures.keys()]
    seen = sessions(kept_samples(samples_table(read_log(run.journal))))
    rows = []
    for contender in runnable:
        block = contender.block
        cost = cost_of_copy(seen, measurement.estimates, contender)
        scale = measurement.reference.ms
        ms = cost.ms * scale
        low, high = measurement.reference.widen(ms, cost.low * scale, cost.high * scale)
        alone = model_id(contender.alone)
        alone_ms, *ends = measurement.ms(alone)
        alone_low, alone_high = measurement.reference.widen(alone_ms, *ends)
        macs = block.macs()
        rows.append(
            {
                "family": contender.family,
                "block": contender.name,
                "key": block.key,
                "resolution": block.resolution,
                "tokens": contender.tokens,
                "ms": ms,
                "ms_low": low,
                "ms_high": high,
                "alone_ms": alone_ms,
                "alone_low": alone_low,
                "alone_high": alone_high,
                "params": block.params(),
                "conv_linear_macs": macs.conv_linear,
                "total_macs": macs.total,
                "ns_per_mac": 1e6 * ms / macs.total if macs.total else None,
                "complexity": block.complexity,
                **_lowering(variant, contender),
            }
        )
    rows.sort(key=lambda row: (row["family"] == "layer", row["tokens"], row["ms"]))
    for row in rows:
        row["rank"] = 1 + sum(_comparable(row, other) and other["ms"] < row["ms"] for other in rows)
    return rows


def _comparable(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (row["family"], row["tokens"]) == (other["family"], other["tokens"])


def _lowering(variant: Variant, contender: Contender) -> dict[str, Any]:
    """Delegates of the block in the long chain, and what runs outside of them; nothing of a simulated one."""
    artifact = None if variant.is_simulated else ArtifactCache().get(variant.export_spec(contender.long))
    if artifact is None or variant.runtime == "coreml":
        return {"delegates": None, "outside": ""}
    outside = " ".join(f"{name}x{count}" for name, count in artifact.report.operators)
    return {"delegates": artifact.report.delegates, "outside": outside}


def _write(path: Path, document: Mapping[str, Any], title: str) -> None:
    if path.suffix == ".json":
        write_text(path, json.dumps(document, indent=2) + "\n")
        return
    from orchestrator.report.blocks_figure import blocks_figure
    from orchestrator.report.draw import save_png

    save_png(blocks_figure(document["blocks"], title), path)


_COLUMNS = [
    Column("tokens", "tokens N"),
    Column("rank", "rank"),
    Column("block", "block"),
    Column("ms", "ms", 4),
    Column("ms_low", "95 % low", 4),
    Column("ms_high", "high", 4),
    Column("alone_ms", "alone, ms", 4),
    Column("params", "parameters"),
    Column("conv_linear_macs", "conv+linear MACs"),
    Column("total_macs", "all MACs"),
    Column("ns_per_mac", "ns per MAC", 4),
    Column("complexity", "MACs in tokens N, channels d"),
]


def _show(title: str, rows: Sequence[dict[str, Any]], measurement: Measurement) -> None:
    for family, of in (("mixer", "token mixers"), ("layer", "layers of a ViT")):
        if mine := [row for row in rows if row["family"] == family]:
            emit_rows(f"{title}: {of}", _COLUMNS, mine, False)
    for row in rows:
        if row["outside"]:
            print(
                f"{row['block']} at {row['resolution']} px: outside of its {row['delegates']} delegates, in three "
                f"copies: {row['outside']}"
            )
    print(
        "ms: what one more copy costs in a chain, with as many tokens as the one before leaves; "
        "alone: a model of one block, with its input and output\n"
        f"noise floor {100 * measurement.estimates.noise_floor:.2f} % between two loads"
    )
