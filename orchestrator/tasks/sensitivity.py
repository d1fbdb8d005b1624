"""int8 sensitivity of a network's blocks, and the fewest blocks that have to stay fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.table import Column, Table
from orchestrator.accuracy.network import SimulatedInt8
from orchestrator.accuracy.predictions import Predictions
from orchestrator.export import ExportSpec
from orchestrator.export.lower.calibration import read_images
from orchestrator.export.lower.source import build_module, places_of
from orchestrator.tasks.candidates import split_of
from orchestrator.tasks.evaluate import AccuracyEvaluator
from orchestrator.tasks.evaluation_options import SensitivityOptions
from orchestrator.tasks.export import Lowering, normalization_for, specs_for
from orchestrator.tasks.networks import Networks, by_name
from orchestrator.tasks.progress import Progress, Step, silent
from orchestrator.tasks.quantization import Calibration, MixedPrecision
from orchestrator.tasks.trained import Trained
from search.blocks import group_blocks, parse_keys


@dataclass(frozen=True)
class SensitivityRow:
    """A network with some parts in int8.

    Attributes:
        keep_fp32: Paths of the parts that stay fp32; None for the whole network.
        agreement: Fraction of images with the same prediction as fp32.
        error: Root mean square difference of logits to fp32, relative to the standard deviation of fp32's.
    """

    what: str
    keep_fp32: tuple[str, ...] | None
    top1: Proportion
    agreement: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row of JSON and tables."""
        low, high = self.top1.interval
        return {
            "what": self.what,
            "top1": self.top1.share,
            "top1_low": low,
            "top1_high": high,
            "agreement": self.agreement,
            "error": self.error,
        }


@dataclass(frozen=True)
class Sensitivity:
    """What int8 costs a network.

    Attributes:
        single: Each part alone in int8, the costliest first.
        mixed: With the costliest parts in fp32, one more each time, up to the first that loses little enough.
        recipe: The last of these, as `--keep-fp32` takes it.
    """

    fp32: SensitivityRow
    int8: SensitivityRow
    single: tuple[SensitivityRow, ...]
    mixed: tuple[SensitivityRow, ...]
    recipe: MixedPrecision
    options: SensitivityOptions

    COLUMNS: ClassVar = (
        Column("what", "network"),
        Column("top1", "top-1", 2, percent=True),
        Column("top1_low", "95 % low", 2, percent=True, spare=3),
        Column("top1_high", "high", 2, percent=True, spare=3),
        Column("agreement", "same as fp32", 2, percent=True),
        Column("error", "error of logits", 4),
    )

    @property
    def rows(self) -> tuple[SensitivityRow, ...]:
        """All rows in the order of a table."""
        return (self.fp32, self.int8, *self.single, *self.mixed)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"rows": [row.to_dict() for row in self.rows], "fp32": list(self.recipe.fp32)}

    def report(self) -> Iterator[Table | str]:
        """Yield the rows, and what to keep in fp32."""
        options, rows = self.options, [row.to_dict() for row in self.rows]
        yield Table(f"{options.images} {options.split} images of {options.data}", self.COLUMNS, rows)
        if self.recipe.fp32:
            yield f"stays fp32: {' '.join(self.recipe.fp32)}"
        else:
            yield f"int8 loses no more than {options.within:g} points of top-1: use it for the whole network"
        yield "simulated in PyTorch on few images; bench eval --precision mixed evaluates the exported program"


def measure_sensitivity(
    options: SensitivityOptions, networks: Networks = (), progress: Progress = silent
) -> Sensitivity:
    """Evaluate each part of a network alone in int8, then with more and more of the costliest parts in fp32.

    Int8 is simulated in PyTorch with the exporter's own quantisation; `bench eval --precision mixed` evaluates the
    exported program. `networks` may have the network as an object.

    Raises:
        UsageError: no network or several, no such images, or classes that are not those of the images.
        InvalidArtifactError: weights or an image are damaged.
    """
    if options.output is not None:
        check_folder(options.output.parent)
    evaluator = AccuracyEvaluator.open(options, None, progress, split_of((), options.supernet))
    calibration = Calibration(options.data, options.calibration_images, options.seed)
    data = options.data if options.supernet else None
    trained = Trained(file=options.weights, supernet=options.supernet, data=data, outside=options.outside)
    with tempfile.TemporaryDirectory() as folder:
        specs = specs_for(
            by_name(networks or options.network),
            Lowering(precision="int8"),
            options.resolution,
            trained,
            calibration,
            Path(folder),
            progress,
        )
        if len(specs) != 1:
            raise UsageError(
                f"the sensitivity of one network is measured, not of {len(specs)}; name one",
                code="one_network",
            )
        ((name, spec),) = specs.items()
        result = _measure(name, spec, evaluator, trained, options, progress)
    if options.output is not None:
        result.recipe.write(options.output)
    return result


def _measure(
    name: str,
    spec: ExportSpec,
    evaluator: AccuracyEvaluator,
    trained: Trained,
    options: SensitivityOptions,
    progress: Progress,
) -> Sensitivity:
    module, inputs = build_module(spec)
    calibration = read_images(Path(spec.calibration_path), inputs)
    normalization = normalization_for(spec, trained) or evaluator.images.normalization
    images = evaluator.images.seen_with(normalization, max(256, calibration.shape[-1]))
    simulated = SimulatedInt8(module, calibration, images)
    keys = {str(i): f"{i} {group[0].key}" for i, group in enumerate(group_blocks(parse_keys(spec.blocks)))}
    labels = {place: keys.get(place, place) for place in places_of(module)}

    def logits(keep_fp32: tuple[str, ...] | None, what: str = "fp32", done: int = 0) -> np.ndarray:
        progress(Step(f"{name}, {what}", done, 2 * len(labels) + 1))
        return simulated.logits(keep_fp32)

    exact = logits(None)
    expected = evaluator.expected(name, exact.shape[1])
    fp32, single, mixed = choose(labels, exact, expected, logits, options.within / 100)
    int8, best = mixed[0], mixed[-1]
    document = {
        "fp32": fp32.to_dict(),
        "int8": int8.to_dict(),
        "mix": best.to_dict(),
        "data": evaluator.describe(),
        "weights": spec.weights,
        "calibration": spec.calibration,
    }
    recipe = MixedPrecision(
        blocks=spec.blocks, module=spec.module, fp32=best.keep_fp32 or (), judged=document
    )
    return Sensitivity(fp32, int8, tuple(single), tuple(mixed[1:]), recipe, options)


def choose(
    labels: Mapping[str, str],
    exact: np.ndarray,
    expected: np.ndarray,
    logits: Callable[[tuple[str, ...], str, int], np.ndarray],
    within: float,
) -> tuple[SensitivityRow, list[SensitivityRow], list[SensitivityRow]]:
    """Return fp32, each part alone in int8 (the costliest first), and mixes from all int8 to the chosen one.

    Args:
        labels: Names of parts, by their paths.
        exact: (N, outputs) logits of fp32.
        expected: (N,) right outputs.
        logits: (N, outputs) of a mix, from the paths in fp32, its name and the number of earlier calls.
        within: Fraction of images of top-1 that may be lost.
    """
    places = list(labels)

    def row(what: str, keep_fp32: tuple[str, ...] | None, values: np.ndarray) -> SensitivityRow:
        predictions, before = (Predictions.of_logits(each) for each in (values, exact))
        error = float(np.sqrt(np.mean((values - exact) ** 2)) / (exact.std() or 1.0))
        agreement = predictions.agreement(before).share
        return SensitivityRow(what, keep_fp32, predictions.accuracy(expected), agreement, error)

    def evaluated(done: int, what: str, keep_fp32: list[str]) -> SensitivityRow:
        return row(what, tuple(keep_fp32), logits(tuple(keep_fp32), what, done))

    mixed = [evaluated(0, "all int8", [])]
    single = [
        evaluated(1 + i, f"{label} alone in int8", [other for other in places if other != place])
        for i, (place, label) in enumerate(labels.items())
    ]
    order = sorted(range(len(places)), key=lambda i: (single[i].agreement, -single[i].error))
    fp32 = row("fp32", None, exact)
    while mixed[-1].top1.share < fp32.top1.share - within and len(mixed) <= len(places):
        paths = [places[i] for i in sorted(order[: len(mixed)])]
        mixed.append(evaluated(len(places) + len(mixed), f"int8 except {' '.join(paths)}", paths))
    return fp32, [single[i] for i in order], mixed
