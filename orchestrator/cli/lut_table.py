"""A LUT for people: its entries as a table, and its provenance as facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luts.format.errors import shorten
from luts.format.lut import Lut
from luts.format.schema import Entry, UnitVariation
from luts.format.table import Column
from orchestrator.cli.output import emit_rows, tell
from orchestrator.journal.conditions import describe_conditions

_COLUMNS = [
    Column("key", "block", key=True),
    Column("ms", "ms", 4),
    Column("ci_low", "95 % low", 4),
    Column("ci_high", "high", 4),
    Column("removal_ms", "removal ms", 4, spare=1),
    Column("loads", "loads", spare=3),
    Column("rounds", "rounds", spare=5),
    Column("method", "method", spare=4),
]
_SHARE = Column("measured_share", "measured here", 2, spare=2)
_IDENTIFIED = Column("identified", "identified", spare=2)
_MIGRATED = Column("migrated_operations", "ops migrated by removal", spare=2)


def emit_entries(entries: Sequence[Entry]) -> None:
    """Print entries as a table, with notes on those that are sums or whose removal moved other operations."""
    later = [_IDENTIFIED] if any(entry.identified is not None for entry in entries) else []
    later += [_SHARE] if any(entry.measured_share is not None for entry in entries) else []
    later += [_MIGRATED] if any(entry.migrated_operations is not None for entry in entries) else []
    emit_rows("", _COLUMNS + later, [entry.model_dump() for entry in entries], False)
    sums = sum(entry.identified == "sum" for entry in entries)
    if sums:
        tell(
            f"{sums} entries are known only as a sum with others: how it is divided rests on the prior; "
            "predictions of the space's networks do not depend on it"
        )
    migrated = sum(bool(entry.migrated_operations) for entry in entries)
    if migrated:
        tell(
            f"{migrated} removals moved operations of other blocks to another compute unit: their removal ms is "
            "not the block's cost, and the fit leaves them out"
        )


def provenance(lut: Lut) -> dict[str, str]:
    """Return the origin and the accuracy of a LUT as named facts for people."""
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
        **describe_conditions(meta),
        "created": meta.created,
        "models": f"{fitted} fitted, {heldout_models} held out"
        + (f", {left_out} removals left out because other operations moved" if left_out else "")
        + f", {lut.samples.num_rows:,} samples",
        **_failures(meta.failures),
        "entries": f"{len(lut.entries)}, {len(measured)} of them measured"
        + (", the others from the prior only" if len(measured) < len(lut.entries) else ""),
        "reference": f"{meta.reference_id}, {reference}",
        "noise floor": f"{100 * meta.noise_floor:.2f} % between two loads of the reference",
        **_unit_variation(meta.unit_spread),
        "held out": heldout,
        **_learned_from(lut),
    }


def _unit_variation(variation: UnitVariation | None) -> dict[str, str]:
    """Return how much units of a device class differ, where several shared the measurement."""
    if variation is None:
        return {}
    figures = (
        (variation.reference, "in the reference's ms"),
        (variation.ratio, "in a network's ratio to it"),
    )
    known = [f"{100 * sd:.2f} % {what}" for sd, what in figures if sd is not None]
    return {"units": f"{variation.units}" + (f", which differ by {', '.join(known)} (sd)" if known else "")}


def _learned_from(lut: Lut) -> dict[str, str]:
    meta = lut.meta
    if not meta.sources:
        return {}
    used = [source for source in meta.sources if source.name not in meta.dropped_sources]
    names = [f"{source.name} ({source.digest[:12]}, {source.measured})" for source in used]
    lines = {"learned from": ", ".join(names) or "no other LUT: the measurements support none"}
    shares = [entry.measured_share for entry in lut.entries if entry.measured_share is not None]
    if shares:
        lines["measured here"] = (
            f"{100 * sum(shares) / len(shares):.0f} % of the uncertainty that other LUTs leave, mean over entries"
        )
    if meta.dropped_sources:
        lines["dropped"] = "; ".join(
            f"{name} contradicts the measurements, which are e^{gain:.1f} times likelier without it"
            if gain > 0
            else f"{name} has no clear support: the measurements are only e^{-gain:.1f} times likelier with it"
            for name, gain in meta.dropped_sources.items()
        )
    if (width := meta.conformal.posterior_half_width_95) is not None and meta.conformal.half_width_95 is None:
        lines["predictions"] = (
            f"within {100 * width:.1f} % (95 %), from the posterior, calibrated by leave-one-out predictions: "
            "fewer than 19 networks are held out"
        )
    return lines


def _failures(failures: Mapping[str, str]) -> dict[str, str]:
    if not failures:
        return {}
    name, reason = next(iter(failures.items()))
    reason = reason.splitlines()[0] if reason else ""
    return {"left out": f"{shorten(list(failures), 3)}; {name}: {reason}"}
