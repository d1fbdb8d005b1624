"""`bench lut`: list, show, verify, compare and use latency tables."""

from __future__ import annotations

from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.messages import unknown
from luts.verify import rebuild, verify_lut
from orchestrator.cli import lut_diff, lut_versions
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import ResolutionOption, parse_name
from orchestrator.cli.output import Column, JsonOption, emit_facts, emit_json, emit_rows, paged, tell
from orchestrator.tasks.predict import predict

app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)

lut_versions.register(app)
lut_diff.register(app)


@app.command("show")
def show_command(
    lut: LutArgument,
    kind: Annotated[str | None, typer.Option(help="Only blocks of this kind, e.g. mvit.layer.")] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """A LUT's provenance and its entries, dearest first."""
    store = open_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref.path)
    entries = sorted(table.entries, key=lambda entry: (-entry.ms, entry.key))
    kinds = sorted({entry.kind for entry in entries})
    if kind is not None and kind not in kinds:
        raise UsageError(f"{ref}: " + unknown("kind", kind, kinds))
    entries = [entry for entry in entries if kind in (None, entry.kind)]
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"lut": str(ref), "meta": table.meta.model_dump(), "entries": rows})
        return
    with paged():
        emit_facts(str(ref), provenance(table), False)
        tell("")
        emit_entries(entries)


@app.command("rebuild")
def rebuild_command(
    lut: LutArgument,
    name: Annotated[str | None, typer.Option(help="Another name for its device.")] = None,
    luts: LutsOption = None,
) -> None:
    """A new version of a LUT: its own samples, estimated as this version of bench does."""
    store = open_store(luts)
    print(store.write(rebuild(store.load(lut), parse_name(name) if name else "")))


@app.command("verify")
def verify_command(lut: LutArgument, luts: LutsOption = None, as_json: JsonOption = False) -> None:
    """Check every file of a LUT and recompute all entries from its samples."""
    ref = open_store(luts).resolve(lut)
    verified = verify_lut(ref.path)
    facts = {
        "lut": str(ref),
        "verdict": "valid: digests hold, all entries follow from the samples",
        "entries": len(verified.entries),
        "models": len(verified.models),
        "samples": verified.samples.num_rows,
    }
    emit_facts("", facts, as_json)


@app.command("predict")
def predict_command(
    lut: LutArgument,
    arch: Annotated[
        list[str],
        typer.Option(
            "--arch", "--model", help="Architecture by name, or its JSON file (-: stdin); repeatable."
        ),
    ],
    resolution: ResolutionOption = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict whole-network latency of architectures."""
    predicted = predict(open_store(luts).load(lut), arch, resolution)
    rows = [
        {
            "arch": name,
            "ms": prediction.ms,
            "low": prediction.low,
            "high": prediction.high,
            "level": prediction.level,
            "weak": " ".join(prediction.weak_keys),
        }
        for name, prediction in predicted.items()
    ]
    columns = [
        Column("arch", "architecture"),
        Column("ms", "ms", 3),
        Column("low", "low", 3),
        Column("high", "high", 3),
        Column("level", "level", percent=True),
        Column("weak", "weakly known blocks"),
    ]
    emit_rows("", columns, rows, as_json)
