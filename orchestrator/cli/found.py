"""What becomes of a search's best: measured, chosen again, written out, fed back, shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luts.lut import Lut
from luts.store import LutStore
from orchestrator.card import Card, model_card
from orchestrator.cli.exports import export_all
from orchestrator.cli.measuring import REFERENCE, measure_beside
from orchestrator.cli.output import Column, emit_facts, emit_json, emit_rows, say
from orchestrator.devices.base import Access
from orchestrator.devices.discover import resolve
from orchestrator.export import ExportSpec
from orchestrator.export.cache import digest
from orchestrator.export.package import deliver
from orchestrator.feedback import fed_back
from orchestrator.measure.plan import model_id
from orchestrator.variant import Variant
from orchestrator.winner import (
    MeasuredArch,
    beside_prediction,
    budget_text,
    choose,
    save_weights,
    top,
    weighted_spec,
    winner_variants,
    write_json,
    write_measured,
    write_text,
)
from search.algorithms import SearchResult, front
from search.algorithms.record import Evaluated, LutPin
from search.spaces import get_space

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy


@dataclass(frozen=True)
class Found:
    """A finished search and what it was made with."""

    result: SearchResult
    evaluator: InheritedAccuracy
    lut: Lut
    pin: LutPin
    output: Path
    workers: int | None

    @property
    def variant(self) -> Variant:
        """How the LUT's models run."""
        return Variant.parse(self.lut.meta.variant)


@dataclass(frozen=True)
class Measured:
    """Measurements of the best, most accurate first.

    Attributes:
        chosen: The most accurate whose measured interval is within the budget; None if there is none.
        journal: Where the samples are.
    """

    device: str
    rows: Sequence[MeasuredArch]
    chosen: MeasuredArch | None
    journal: Path

    @property
    def winner(self) -> MeasuredArch:
        """The chosen one, or the search's own."""
        return self.chosen or self.rows[0]


def measure_best(found: Found, device: str, access: Access, count: int, budget: str, seed: int) -> Measured:
    """Measure the most accurate ones beside the LUT's reference, and choose again."""
    best = top(found.result, count)
    specs = {model_id(row.architecture().keys()): _weighted(found, row, found.variant) for row in best}
    with resolve(device, access) as there:
        measurement, run = measure_beside(there, found.variant, found.lut, specs, budget, seed, found.workers)
    rows = beside_prediction(found.lut, best, measurement)
    measured = Measured(device, rows, choose(rows, found.result.budget.latency_ms), run.journal)
    path = found.output / "measured.json"
    context = {"device": device, "variant": found.variant.name}
    write_measured(path, rows, measured.winner.arch, measured.chosen is not None, context)
    run.finish(str(path))
    return measured


def _weighted(found: Found, row: Evaluated, variant: Variant) -> ExportSpec:
    """How an architecture is exported with the weights that it inherits, which are written first."""
    arch = row.architecture()
    weights = found.output / "weights" / f"{model_id(arch.keys())}.safetensors"
    save_weights(found.evaluator, arch, weights)
    return weighted_spec(variant, arch, weights)


def write_winner(found: Found, measured: Measured | None) -> None:
    """Architecture, weights, models for ExecuTorch and Core ML, and the model card."""
    winner = _winner(found, measured)
    arch = winner.architecture()
    specs = {variant.name: _weighted(found, winner, variant) for variant in winner_variants(found.variant)}
    artifacts = export_all(specs, found.workers)
    write_json(found.output / "winner.json", get_space(arch.space).to_document(arch))
    weights = Path(next(iter(specs.values())).weights_path)
    models = [(artifact.path, artifact.suffix, artifact.sha256) for artifact in artifacts.values()]
    models.append((weights, ".safetensors", digest(weights)[0]))
    files = {"winner.json": digest(found.output / "winner.json")[0]}
    for path, suffix, sha256 in models:
        files[deliver(path, found.output / f"winner{suffix}").name] = sha256
    card = Card(
        search=found.result,
        winner=winner,
        lut_name=found.pin.name,
        lut=found.lut,
        supernet=found.evaluator.info,
        measured=measured.winner if measured else None,
        meets_budget=measured.chosen is not None if measured else None,
        files=files,
    )
    write_text(found.output / "winner.md", model_card(card))


def _winner(found: Found, measured: Measured | None) -> Evaluated:
    if measured is None:
        return found.result.winner
    return next(row for row in found.result.evaluated if row.arch == measured.winner.arch)


def feed_back(found: Found, measured: Measured, store: LutStore) -> Path:
    """Write the next version of the LUT with the measured models in its fit; its folder."""
    archs = [row.architecture() for row in top(found.result, len(measured.rows))]
    return store.write(fed_back(found.lut, found.pin.sha256, measured.journal, REFERENCE, archs))


def report_search(found: Found, measured: Measured | None, further: Path | None, as_json: bool) -> None:
    """Print what was found; `further` is the LUT's new version."""
    result, winner = found.result, _winner(found, measured)
    if as_json:
        document = result.model_dump(include={"space", "budget", "settings", "coarse", "history"})
        document |= {"winner": winner.model_dump(), "lut": found.pin.name}
        document["measured"] = [asdict(row) for row in measured.rows] if measured else []
        document["meets_budget"] = measured.chosen is not None if measured else None
        document["new_lut"] = str(further) if further else None
        document["front"] = _front(result)
        emit_json(document)
        return
    emit_facts("", _facts(found, winner), False)
    if result.settings.strategy == "pareto":
        emit_rows(f"front of {', '.join(result.settings.objectives)}", _FRONT_COLUMNS, _front(result), False)
    if measured is not None:
        emit_rows("the best, measured", _COLUMNS, _rows(measured), False)
        say(_verdict(found, measured))
    if further is not None:
        say(f"the LUT with these measurements: {further}")
    say(f"winner.json, .safetensors, .pte, .mlpackage and model card winner.md in {found.output}")


def _facts(found: Found, winner: Evaluated) -> dict[str, str]:
    result = found.result
    budget, coarse = result.budget, result.coarse
    return {
        "lut": found.pin.name,
        "budget": budget_text(budget),
        "within it": f"{100 * coarse.feasible_share:.3g} % of the space; "
        f"the fastest has {coarse.smallest_ms:.3f} ms",
        "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generations",
        "winner": winner.arch,
        "accuracy": f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights",
        "predicted": f"{winner.latency_ms:.3f} ms (up to {winner.latency_high_ms:.3f})",
        "parameters": f"{winner.params:,}",
    }


_COLUMNS = [
    Column("rank", "rank"),
    Column("accuracy", "accuracy", 2, percent=True),
    Column("predicted_ms", "predicted ms", 3),
    Column("predicted_low", "low", 3),
    Column("predicted_high", "high", 3),
    Column("measured_ms", "measured ms", 3),
    Column("measured_low", "low", 3),
    Column("measured_high", "high", 3),
    Column("error", "error", 2, percent=True),
    Column("chosen", ""),
]


_FRONT_COLUMNS = [
    Column("accuracy", "accuracy", 2, percent=True),
    Column("latency_ms", "predicted ms", 3),
    Column("params", "parameters"),
    Column("macs", "conv+linear MACs"),
    Column("memory_bytes", "activation bytes"),
]


def _front(result: SearchResult) -> list[dict[str, Any]]:
    """What no other evaluated network beats in all objectives."""
    return [row.model_dump() for row in front(result.evaluated, result.settings.objectives)]


def _rows(measured: Measured) -> list[dict[str, Any]]:
    return [
        asdict(row)
        | {
            "rank": rank,
            "error": row.error,
            "chosen": "chosen" if row is measured.chosen else "",
        }
        for rank, row in enumerate(measured.rows, start=1)
    ]


def _verdict(found: Found, measured: Measured) -> str:
    budget = f"{found.result.budget.latency_ms:.3f} ms"
    if measured.chosen is None:
        return (
            f"none of these is within {budget} as measured, the upper end of the interval counting; the winner "
            "stays the search's own: measure more with --top, or search with a smaller --latency"
        )
    if measured.chosen is measured.rows[0]:
        return f"the search's winner is within {budget} as measured"
    rank = measured.rows.index(measured.chosen) + 1
    return f"the winner changed: rank {rank} is the most accurate within {budget} as measured"
