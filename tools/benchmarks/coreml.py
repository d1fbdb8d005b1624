"""How long a Core ML export takes and how large it is: nano blocks and networks, xxs networks, fp16 and int8."""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

from orchestrator.export import ArtifactCache, ExportSpec, block_specs_for
from orchestrator.export.build import export_spec
from search.spaces import get_arch, get_space
from tools.tables import Tables, log

PRECISIONS = ("fp16", "int8")
BLOCKS = 8
NETWORKS = {"autovit-nano": 6, "autovit-xxs": 3}
WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32",)
"""Exported first and not counted: importing coremltools takes longer than a small export."""


def main() -> Tables:
    """Export everything into an empty cache, one model after the other, in one process.

    `error` is the largest difference to PyTorch, relative to the output's scale. int8: weights and activations.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = ArtifactCache(Path(folder))
        for precision in PRECISIONS:
            export_spec(ExportSpec(WARM_UP, runtime="coreml", precision=precision), cache)
            for name, specs in _subjects(precision).items():
                log(f"{name}, {precision} ...")
                artifacts = [export_spec(spec, cache) for spec in specs]
                seconds = [artifact.report.export_s for artifact in artifacts]
                rows.append(
                    {
                        "models": name,
                        "precision": precision,
                        "n": len(artifacts),
                        "seconds, median": statistics.median(seconds),
                        "shortest": min(seconds),
                        "longest": max(seconds),
                        "KiB, median": statistics.median(each.payload_bytes for each in artifacts) / 1024,
                        "error, largest": max(each.report.max_relative_error or 0.0 for each in artifacts),
                    }
                )
    return {"Exports for Core ML": rows}


def _subjects(precision: str) -> dict[str, list[ExportSpec]]:
    rng = random.Random(0)
    blocks = block_specs_for(get_space("autovit-nano"), runtime="coreml", precision=precision)
    subjects = {"autovit-nano, single blocks": rng.sample(blocks, BLOCKS)}
    for name, count in NETWORKS.items():
        archs = [get_space(name).sample(rng) for _ in range(count)]
        if name == "autovit-xxs":
            archs.append(get_arch("autovit-xxs-paper"))
        subjects[f"{name}, networks"] = [
            ExportSpec(arch.keys(), runtime="coreml", precision=precision) for arch in archs
        ]
    return subjects
