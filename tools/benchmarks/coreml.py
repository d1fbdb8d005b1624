"""How long a Core ML export takes and how large it is: nano blocks and networks, xxs networks, fp16 and int8."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.export import Artifact, ArtifactCache, ExportSpec, block_specs_for
from orchestrator.export.build import export_spec
from search.spaces import get_arch, get_space

PRECISIONS = ("fp16", "int8")
BLOCKS = 8
NETWORKS = {"autovit-nano": 6, "autovit-xxs": 3}
WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32",)
"""Exported first and not counted: importing coremltools takes longer than a small model."""


def main() -> str:
    """Export everything into an empty cache, one model after the other."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = ArtifactCache(Path(folder))
        for precision in PRECISIONS:
            export_spec(ExportSpec(WARM_UP, runtime="coreml", precision=precision), cache)
            for name, specs in _subjects(precision).items():
                print(f"{name}, {precision} ...", flush=True)
                rows.append(_row(name, precision, [export_spec(spec, cache) for spec in specs]))
    table = "\n".join(rows)
    return f"""## Exports for Core ML

Seconds to convert, quantise, evaluate and pack a model in one process, from an empty cache; median and range, and
the file's size. int8: weights and activations. `error` is the largest difference to PyTorch, of the output's scale.

| models | precision | n | seconds, median | range | KiB, median | error, largest |
|---|---|---|---|---|---|---|
{table}
"""


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


def _row(name: str, precision: str, artifacts: Sequence[Artifact]) -> str:
    seconds = [artifact.report.export_s for artifact in artifacts]
    kib = statistics.median(artifact.payload_bytes for artifact in artifacts) / 1024
    error = max(artifact.report.max_relative_error or 0.0 for artifact in artifacts)
    return (
        f"| {name} | {precision} | {len(artifacts)} | {statistics.median(seconds):.1f} "
        f"| {min(seconds):.1f} to {max(seconds):.1f} | {kib:,.0f} | {error:.1e} |"
    )


if __name__ == "__main__":
    print(main())
