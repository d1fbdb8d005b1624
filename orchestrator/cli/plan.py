"""What `bench profile --plan-only` says of a plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from luts.format.errors import few
from luts.format.table import Column
from orchestrator.cli.output import emit_facts, emit_json, emit_rows
from orchestrator.tasks.plan import PlannedProfile

PARTNERS_SHOWN = 3

_COLUMNS = [
    Column("key", "block", key=True),
    Column("models", "models with it"),
    Column("shown", "removed or swapped", spare=1),
    Column("relative_se", "expected error", 0, percent=True),
    Column("identified", "identified"),
    Column("weak", "weak"),
    Column("partners", "only as a sum with", key=True, spare=2),
]


def show_plan(planned: PlannedProfile, as_json: bool) -> None:
    """Models by role, time, and what will be known of every entry, the worst first."""
    plan, forecast, cached = planned.plan, planned.forecast, planned.cached
    rows: list[dict[str, Any]] = [asdict(entry) for entry in forecast.entries]
    if as_json:
        document = {
            "digest": plan.digest,
            "models": dict(Counter(model.role for model in plan.models)),
            "device_s": forecast.device_s,
            "device_most_s": forecast.most_s,
            "expected_latencies": forecast.source,
            "compiled_on_device": planned.compiled,
            "compiling_s": planned.compile_s,
            "exports_cached": cached,
            "exports_to_make": None if cached is None else len(plan.models) - cached,
            "exports_s": planned.export_s,
            "blocks": rows,
        }
        emit_json(document)
        return
    for row in rows:
        row["partners"] = few(row["partners"], PARTNERS_SHOWN)
    emit_rows("", _COLUMNS, rows, False)
    emit_facts("", _facts(planned), False)


def _facts(planned: PlannedProfile) -> dict[str, Any]:
    models, forecast = planned.plan.models, planned.forecast
    roles = Counter(model.role for model in models)
    weak = sum(entry.weak for entry in forecast.entries)
    sums = sum(entry.identified == "sum" for entry in forecast.entries)
    unheld = sum(entry.identified == "prior" for entry in forecast.entries)
    facts = {
        "models": f"{len(models)}: " + ", ".join(f"{n} {role}" for role, n in roles.items()),
        "on the device": f"{_minutes(forecast.device_s)} to {_minutes(forecast.most_s)} minutes of measuring, "
        f"latencies from {forecast.source}",
        "entries": f"{len(forecast.entries)}: {weak} weak, {sums} known only as a sum with others, "
        f"{unheld} from the prior alone",
    }
    if planned.compiled:
        facts["first loads"] = (
            f"{planned.compiled} models are compiled for the neural engine on the device, once each: "
            + _compiling(planned)
        )
    if planned.cached is not None and planned.export_s is not None:
        missing = len(models) - planned.cached
        time = f" in about {_minutes(planned.export_s)} minutes" if missing else ""
        facts["export"] = f"{planned.cached} models are there, {missing} to be made{time}"
    return facts


def _compiling(planned: PlannedProfile) -> str:
    if planned.compile_s is None:
        return "seconds to minutes for one, beside the minutes of measuring; known once such a device has run some"
    return (
        f"about {_minutes(planned.compile_s)} minutes beside those of measuring, by {planned.first_loads} first "
        "loads of earlier runs"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"
