"""A search's best architectures, exported with inherited weights and measured beside what was predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luts.errors import StorageError
from luts.lut import Lut
from orchestrator.export import ExportSpec
from orchestrator.export.cache import digest
from orchestrator.measure.session import Measurement
from orchestrator.measure.validate import Comparison, compare
from orchestrator.variant import Variant
from search.algorithms import Budget, SearchResult
from search.algorithms.record import Evaluated
from search.files import write_atomically
from search.spaces import Arch

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy


@dataclass(frozen=True)
class MeasuredArch(Comparison):
    """One architecture of a search: predicted, measured, and judged by its inherited accuracy."""

    accuracy: float


def budget_text(budget: Budget) -> str:
    """A budget as people read it."""
    parts = [" and ".join(f"{ms:.3f} ms" for ms in (budget.latency_ms, *budget.further_latency_ms))]
    parts += [f"{budget.params:,} parameters"] if budget.params is not None else []
    parts += [f"{budget.macs:,} conv+linear MACs"] if budget.macs is not None else []
    parts += [f"{budget.memory_bytes:,} bytes of activations"] if budget.memory_bytes is not None else []
    held = (
        f"latency held with {100 * budget.confidence:g} % confidence" if budget.cautious else "by prediction"
    )
    return ", ".join([*parts, held])


def top(result: SearchResult, count: int) -> list[Evaluated]:
    """The `count` best architectures by what the search ranked them by; its winner first."""
    price = result.settings.loss_per_ms
    ranked = sorted(
        result.evaluated,
        key=lambda e: (1.0 - e.accuracy + price * e.latency_ms, e.latency_ms, e.params, e.arch),
    )
    return ranked[:count]


def choose(rows: Sequence[MeasuredArch], budget_ms: float) -> MeasuredArch | None:
    """The first, the best by the search, whose measured interval is within the budget; None if none is."""
    return next((row for row in rows if row.measured_high <= budget_ms), None)


def save_weights(evaluator: InheritedAccuracy, arch: Arch, path: Path) -> None:
    """Write a subnet's weights, its own BN statistics among them, as safetensors."""
    from safetensors.torch import save_file  # brings torch, which most commands can do without

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(evaluator.network(arch).state_dict(), path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free some space and repeat") from error


def weighted_spec(variant: Variant, arch: Arch, weights: Path) -> ExportSpec:
    """How an architecture is exported with weights from a file."""
    spec = variant.export_spec(arch.keys())
    return ExportSpec(
        spec.blocks,
        runtime=spec.runtime,
        backend=spec.backend,
        precision=spec.precision,
        weights=f"sha256:{digest(weights)[0]}",
        weights_path=str(weights),
    )


def beside_prediction(lut: Lut, found: Sequence[Evaluated], measurement: Measurement) -> list[MeasuredArch]:
    """Each architecture's prediction and measurement, in the order given."""
    compared = compare(lut, [evaluated.architecture() for evaluated in found], measurement)
    return [
        MeasuredArch(**asdict(row), accuracy=evaluated.accuracy)
        for row, evaluated in zip(compared, found, strict=True)
    ]


def winner_variants(variant: Variant) -> tuple[Variant, Variant]:
    """What a winner is exported for: ExecuTorch and Core ML, the LUT's own variant one of them."""
    if variant.runtime == "executorch":
        return variant, Variant("coreml", "all")
    if variant.is_simulated:
        return Variant("executorch", "xnnpack", threads=1), Variant("coreml", "all")
    return Variant("executorch", "xnnpack", threads=1), variant


def write_json(path: Path, document: object) -> None:
    """Write a JSON file for people and reports."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, all or nothing."""
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free some space and repeat") from error


def write_measured(
    path: Path, rows: Sequence[MeasuredArch], winner: str, meets: bool, context: Mapping[str, str]
) -> None:
    """Keep the measurements of a search's best; `meets`: the winner's measured interval is within the budget."""
    models = [asdict(row) for row in rows]
    write_json(path, dict(context) | {"winner": winner, "meets_budget": meets, "models": models})
