"""A LUT of a simulated device compared with the truth that it estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import mape
from luts.format.files import write_json
from luts.format.lut import Lut
from orchestrator.simulate.device import GroundTruth, Scenario, boundary_mib


@dataclass(frozen=True)
class GroundTruthComparison:
    """How close a LUT is to the truth.

    Latencies are relative to the reference's: milliseconds of a clock that drifts have no truth. A block's
    key determines the size of its output, so that no measurement separates an entry from its part of the
    transfer term: true entries include what the LUT's transfer term leaves out.

    Attributes:
        entries: Number of measured entries.
        covered: Fraction of them whose 95 % interval contains the true cost.
        entry_error: Absolute errors of entries, summed, over the summed costs.
        alone, alone_error: Number and error of the entries that the plan identifies alone.
        heldout: Number of held-out models.
        heldout_mape: Error of predictions against true latencies of the held-out models.
        context: Standard deviation of their true latencies from their additive part: some of it goes into
            entries, no LUT can predict the rest.
        reference_ratio: The LUT's milliseconds of the reference over the true ones.
    """

    entries: int
    covered: float
    entry_error: float
    alone: int
    alone_error: float | None
    heldout: int
    heldout_mape: float | None
    context: float | None
    reference_ratio: float


def compare_lut_with_truth(lut: Lut, truth: GroundTruth) -> GroundTruthComparison:
    """Return the LUT's entries and predictions compared with the truth for as many threads."""
    scale = lut.meta.reference_ms / truth.latency_ms(lut.reference.blocks)
    measured = [entry for entry in lut.entries if entry.method != "prior"]
    missed_ms_per_mib = scale * truth.costs.transfer_ms_per_mib - lut.meta.transfer_ms_per_mib
    true_ms = np.array(
        [
            scale * truth.entry_ms(entry.key) + missed_ms_per_mib * boundary_mib(entry.key)
            for entry in measured
        ]
    )
    errors_ms = abs(np.array([entry.ms for entry in measured]) - true_ms)
    alone = np.array([entry.identified == "alone" for entry in measured])
    covered = [entry.ci_low <= ms <= entry.ci_high for entry, ms in zip(measured, true_ms, strict=True)]
    heldout = [model for model in lut.models if model.split == "heldout"]
    predicted = [lut.predict(model.blocks, model.boundary_bytes).ms for model in heldout]
    latencies = [scale * truth.latency_ms(model.blocks) for model in heldout]
    strays = [truth.context_ms(model.blocks) / truth.latency_ms(model.blocks) for model in heldout]
    return GroundTruthComparison(
        entries=len(measured),
        covered=float(np.mean(covered)),
        entry_error=float(errors_ms.sum() / true_ms.sum()),
        alone=int(alone.sum()),
        alone_error=float(errors_ms[alone].sum() / true_ms[alone].sum()) if alone.any() else None,
        heldout=len(heldout),
        heldout_mape=mape(latencies, predicted) if heldout else None,
        context=float(np.std(strays)) if heldout else None,
        reference_ratio=scale,
    )


def write_truth(
    path: Path,
    scenario: Scenario,
    threads: int,
    models: Mapping[str, Sequence[str]],
    comparison: GroundTruthComparison,
) -> None:
    """Write the truth about models (block keys by id), and how close the LUT is; raises StorageError."""
    truth = GroundTruth(scenario.costs, threads)
    document = {
        "simulated": True,
        "scenario": scenario.model_dump(),
        "threads": threads,
        "base_ms": truth.base_ms,
        "transfer_ms_per_mib": scenario.costs.transfer_ms_per_mib,
        "entries": {
            key: truth.entry_ms(key) for key in sorted({k for keys in models.values() for k in keys})
        },
        "models": {
            name: {"additive_ms": truth.additive_ms(blocks), "latency_ms": truth.latency_ms(blocks)}
            for name, blocks in models.items()
        },
        "comparison": asdict(comparison),
    }
    write_json(path, document)
