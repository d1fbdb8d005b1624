"""`bench bundle`, `bench import`: a profile that a device makes alone, and the LUT of what comes back."""

from __future__ import annotations

import typer

from orchestrator.cli.lut_table import provenance
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, say
from orchestrator.cli.profile import why_it_ended
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.bundle import BundleCommand, ImportCommand, Imported, bundle, import_journals


def register(app: typer.Typer) -> None:
    """Add the commands."""
    text = example("bench bundle --device-kind android --space autovit-xxs -o xxs.bundle")
    app.command("bundle", epilog=text)(with_options(bundle_command))
    app.command("import", epilog=example("bench import xxs.bundle.journal.jsonl"))(
        with_options(import_command)
    )


def bundle_command(options: BundleCommand, as_json: JsonOption = False) -> None:
    """Write a profile as one file that a device runs without a computer.

    The device leaves a journal, which bench import turns into a LUT.
    """
    with shown_progress() as progress:
        made = bundle(options, progress)
    facts = {
        "digest": made.digest,
        "device kind": made.device_kind,
        "variant": made.variant,
        "models": made.models,
        "batches at most": made.batches,
        "MiB": round(made.size_bytes / 2**20, 1),
    }
    emit_facts(str(made.path), facts, as_json)


def import_command(options: ImportCommand, as_json: JsonOption = False) -> None:
    """Make a LUT of the journal that a device left when it ran a bundle, with the checks of a live run."""
    with shown_progress() as progress:
        imported = import_journals(options, progress)
    if as_json:
        emit_json({"luts": [{"path": str(one.path), "meta": one.lut.meta.model_dump()} for one in imported]})
        return
    for one in imported:
        _show(one)


def _show(one: Imported) -> None:
    measured = one.measurement
    say(f"{one.journal}: {measured.batches_kept} batches kept, {measured.batches_rejected} do not count")
    say(why_it_ended(measured, one.policy))
    for model, reason in measured.failures.items():
        say(f"left out {model}: {reason}")
    emit_facts(str(one.path), dict(provenance(one.lut)), False)
