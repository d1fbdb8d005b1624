"""`bench lut`: list, show, verify, compare and use latency tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from luts.diff import diff_luts
from luts.lut import Lut
from luts.model import LatencyModel
from luts.schema import Entry
from luts.verify import rebuild, verify_lut
from orchestrator.cli.options import parse_name
from orchestrator.cli.output import Column, JsonOption, emit_facts, emit_json, emit_rows
from orchestrator.measure.conditions import described
from orchestrator.paths import lut_store
from search.spaces import load_arch

app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)

LutArgument = Annotated[
    str, typer.Argument(help="Folder, device/space/variant[/vN], or any parts of it that name one LUT.")
]
RootOption = Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs, looked at first.")]

ENTRY_COLUMNS = [
    Column("key", "block"),
    Column("ms", "ms", 4),
    Column("ci_low", "95 % low", 4),
    Column("ci_high", "high", 4),
    Column("removal_ms", "removal ms", 4),
    Column("loads", "loads"),
    Column("rounds", "rounds"),
    Column("method", "method"),
]
IDENTIFIED_COLUMN = Column("identified", "known")
MOVED_COLUMN = Column("moved", "ops moved by removal")


def emit_entries(entries: Sequence[Entry]) -> None:
    """Entries as a table; where placement is known, with what a removal moved to another compute unit."""
    later = [IDENTIFIED_COLUMN] if any(entry.identified is not None for entry in entries) else []
    later += [MOVED_COLUMN] if any(entry.moved is not None for entry in entries) else []
    emit_rows("", ENTRY_COLUMNS + later, [entry.model_dump() for entry in entries], False)
    sums = sum(entry.identified == "sum" for entry in entries)
    if sums:
        print(
            f"{sums} entries are known only as a sum with others: their share of it rests on the prior, "
            "predictions of the space's networks do not depend on it"
        )
    moved = sum(bool(entry.moved) for entry in entries)
    if moved:
        print(
            f"{moved} removals moved operations of other blocks to another compute unit: their removal ms is not "
            "the block's cost, and the fit leaves them out"
        )


@app.command("list")
def list_command(luts: RootOption = None, as_json: JsonOption = False) -> None:
    """All LUTs that can be found, with what they were measured on."""
    store = lut_store(luts)
    rows = []
    for ref in store.list():
        meta = store.load(ref.path).meta
        rows.append(
            {
                "lut": str(ref),
                "model": meta.device.model,
                "kind": meta.measured,
                "reference_ms": meta.reference_ms,
                "noise_floor": meta.noise_floor,
                "mape": meta.heldout_error.mape if meta.heldout_error else None,
                "created": meta.created,
                "path": str(ref.path),
            }
        )
    columns = [
        Column("lut", "LUT"),
        Column("model", "device"),
        Column("kind", "numbers"),
        Column("reference_ms", "reference ms", 3),
        Column("noise_floor", "noise floor", 2, percent=True),
        Column("mape", "held-out MAPE", 2, percent=True),
        Column("created", "created"),
    ]
    emit_rows("", columns, rows, as_json)


@app.command("show")
def show_command(
    lut: LutArgument,
    kind: Annotated[str | None, typer.Option(help="Only blocks of this kind, e.g. mvit.layer.")] = None,
    luts: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """A LUT's provenance and its entries, dearest first."""
    ref = lut_store(luts).resolve(lut)
    found = lut_store(luts).load(ref.path)
    entries = sorted(found.entries, key=lambda entry: (-entry.ms, entry.key))
    entries = [entry for entry in entries if kind in (None, entry.kind)]
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"lut": str(ref), "meta": found.meta.model_dump(), "entries": rows})
        return
    emit_facts(str(ref), provenance(found), False)
    emit_entries(entries)


def provenance(lut: Lut) -> dict[str, str]:
    """Where a LUT comes from and how good it is, as lines for people."""
    meta = lut.meta
    reference = f"{meta.reference_ms:.3f} ms ({meta.reference_ci_low:.3f} to {meta.reference_ci_high:.3f})"
    measured = [entry for entry in lut.entries if entry.method != "prior"]
    error = meta.heldout_error
    heldout = (
        f"MAPE {100 * error.mape:.2f} %, {100 * error.within_5:.0f} % within 5 %, of {error.models} models"
        if error
        else "no model was held out"
    )
    fitted = sum(model.fitted for model in lut.models)
    heldout_models = sum(model.split == "heldout" for model in lut.models)
    left_out = len(lut.models) - fitted - heldout_models
    return {
        "device": f"{meta.device.model}, {meta.device.soc}, {meta.device.os} {meta.device.os_build}",
        "numbers": meta.measured,
        "runtime": meta.versions.runtime,
        "exporter": meta.versions.exporter,
        "agent": meta.versions.agent,
        **described(meta),
        "created": meta.created,
        "models": f"{fitted} fitted, {heldout_models} held out"
        + (f", {left_out} removals left out that moved operations" if left_out else "")
        + f", {lut.samples.num_rows:,} samples",
        "entries": f"{len(lut.entries)}, {len(measured)} of them measured"
        + (", the others from the prior alone" if len(measured) < len(lut.entries) else ""),
        "reference": f"{meta.reference_id}, {reference}",
        "noise floor": f"{100 * meta.noise_floor:.2f} % between two loads of the reference",
        "held out": heldout,
    }


@app.command("rebuild")
def rebuild_command(
    lut: LutArgument,
    name: Annotated[str | None, typer.Option(help="Another name for its device.")] = None,
    luts: RootOption = None,
) -> None:
    """A new version of a LUT: its own samples, estimated as this version of bench does."""
    store = lut_store(luts)
    found = store.load(store.resolve(lut).path)
    print(store.write(rebuild(found, parse_name(name) if name else "")))


@app.command("verify")
def verify_command(lut: LutArgument, luts: RootOption = None, as_json: JsonOption = False) -> None:
    """Check every file of a LUT and recompute all entries from its samples."""
    ref = lut_store(luts).resolve(lut)
    found = verify_lut(ref.path)
    facts = {
        "lut": str(ref),
        "verdict": "valid: digests hold, all entries follow from the samples",
        "entries": len(found.entries),
        "models": len(found.models),
        "samples": found.samples.num_rows,
    }
    emit_facts("", facts, as_json)


@app.command("diff")
def diff_command(
    first: LutArgument, second: LutArgument, luts: RootOption = None, as_json: JsonOption = False
) -> None:
    """Compare two LUTs entry by entry."""
    store = lut_store(luts)
    diff = diff_luts(store.load(first), store.load(second))
    rows = [
        {
            "key": entry.key,
            "first_ms": entry.first_ms,
            "second_ms": entry.second_ms,
            "ratio": entry.ratio,
            "overlap": entry.overlap,
        }
        for entry in diff.entries
    ]
    summary = {
        "common": len(diff.entries),
        "overlap_share": diff.overlap_share,
        "reference_ratio": diff.reference_ratio,
        "only_first": list(diff.only_first),
        "only_second": list(diff.only_second),
    }
    if as_json:
        emit_json(summary | {"entries": rows})
        return
    columns = [
        Column("key", "block"),
        Column("first_ms", "first ms", 4),
        Column("second_ms", "second ms", 4),
        Column("ratio", "second / first", 3),
        Column("overlap", "intervals overlap"),
    ]
    emit_rows("", columns, rows, False)
    share = "-" if diff.overlap_share is None else f"{100 * diff.overlap_share:.1f} %"
    scale = "other models" if diff.reference_ratio is None else f"{diff.reference_ratio:.3f}"
    print(
        f"{len(rows)} common entries, intervals overlap for {share}; reference latency second / first: {scale}"
    )
    for name, keys in (("first", diff.only_first), ("second", diff.only_second)):
        if keys:
            print(
                f"only in the {name}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
            )


@app.command("predict")
def predict_command(
    lut: LutArgument,
    arch: Annotated[list[str], typer.Option(help="Named architecture or JSON file; may be repeated.")],
    luts: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict whole-network latency of architectures."""
    model = LatencyModel.from_lut(lut_store(luts).load(lut))
    rows = []
    for name in arch:
        found = load_arch(name)
        prediction = model.predict(found.keys(), found.boundary_bytes())
        rows.append(
            {
                "arch": name,
                "ms": prediction.ms,
                "low": prediction.low,
                "high": prediction.high,
                "level": prediction.level,
                "weak": " ".join(prediction.weak_keys),
            }
        )
    columns = [
        Column("arch", "architecture"),
        Column("ms", "ms", 3),
        Column("low", "low", 3),
        Column("high", "high", 3),
        Column("level", "level", percent=True),
        Column("weak", "weakly known blocks"),
    ]
    emit_rows("", columns, rows, as_json)
