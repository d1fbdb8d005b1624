"""Networks at several batch sizes: which models that makes, and images a second of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import MAX_BATCH


@dataclass(frozen=True)
class Throughput:
    """Images a second of a model that computes `batch` of them at once, with a 95 % interval."""

    images_s: float
    low: float
    high: float

    @classmethod
    def of(cls, batch: int, ms: float, ms_low: float, ms_high: float) -> Throughput:
        """From the latency of one call and its interval."""
        return cls(1e3 * batch / ms, 1e3 * batch / ms_high, 1e3 * batch / ms_low)

    def columns(self) -> dict[str, float]:
        """As JSON and tables have it."""
        return {"images_s": self.images_s, "images_s_low": self.low, "images_s_high": self.high}


def parse_batches(text: str | None) -> tuple[int, ...]:
    """Ascending sizes of `1,8,32`; batch 1 alone where nothing is said.

    Raises:
        UsageError: not whole numbers from 1 to `MAX_BATCH`.
    """
    try:
        sizes = tuple(sorted({int(part) for part in (text or "1").split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= MAX_BATCH:
        raise UsageError(
            f"--batch {(text or '')[:40]!r}: expected sizes from 1 to {MAX_BATCH}, such as 1,8,32"
        )
    return sizes


def batched(
    specs: Mapping[str, ExportSpec], batches: Sequence[int]
) -> tuple[dict[str, ExportSpec], dict[str, tuple[str, int]]]:
    """Every network at every batch size: how each is exported, and its network and size, both by its own name.

    A network keeps its name at batch 1; all networks of a size stand together, small sizes first.
    """
    made: dict[str, ExportSpec] = {}
    means: dict[str, tuple[str, int]] = {}
    for batch in batches:
        for name, spec in specs.items():
            label = name if batch == 1 else f"{name}, batch {batch}"
            made[label] = replace(spec, batch=batch)
            means[label] = (name, batch)
    return made, means
