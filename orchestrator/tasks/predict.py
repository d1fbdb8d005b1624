"""Predict the latency of whole networks by a LUT, or explain why it can't be predicted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from luts.format.errors import UsageError
from luts.format.latency import Prediction
from luts.format.lut import Lut
from luts.format.table import Column
from orchestrator.plan.plan import classifier_note, with_classifier_prices
from orchestrator.tasks.networks import Network, Networks, at_resolution, by_name
from orchestrator.tasks.progress import Note, Progress, silent
from search.spaces import Arch
from search.spaces.scope import covered_space

PREDICTION_COLUMNS = (
    Column("arch", "architecture"),
    Column("ms", "ms", 3),
    Column("low", "low", 3),
    Column("high", "high", 3),
    Column("level", "level", percent=True),
    Column("basis", "interval from", spare=1),
    Column("weak", "weakly known blocks"),
)


def prediction_row(name: str, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as a row of `PREDICTION_COLUMNS`."""
    row = asdict(prediction) | {"weak": " ".join(prediction.weak_keys)}
    return {"arch": name} | {column.name: row[column.name] for column in PREDICTION_COLUMNS[1:]}


def predict(
    lut: Lut, networks: Networks, resolution: int | None = None, progress: Progress = silent
) -> dict[str, Prediction]:
    """Predict latencies by name.

    Args:
        lut: The table.
        networks: Architectures by name, or their names or files.
        resolution: Input resolution; each network's own by default.
        progress: Called with a note where classifiers are priced that the LUT did not measure.

    Raises:
        UsageError: an unknown network, or one that the LUT can't price; the message says what is needed.
        InvalidArtifactError: a damaged file of an architecture.
    """
    sized = {name: at_resolution(name, network, resolution) for name, network in by_name(networks).items()}
    luts = {
        network.classes: lut
        for network in sized.values()
        if isinstance(network, Arch) and network.space == lut.meta.space
    }
    for classes in luts:
        luts[classes] = with_classifier_prices(lut, classes)
        if note := classifier_note(lut, luts[classes], classes):
            progress(Note(note))
    return {
        name: _predicted(luts.get(network.classes, lut) if isinstance(network, Arch) else lut, name, network)
        for name, network in sized.items()
    }


def _predicted(lut: Lut, name: str, network: Network) -> Prediction:
    if isinstance(network, str):
        raise UsageError(
            f"{name} does not consist of blocks of a LUT; measure it with bench measure", code="not_priceable"
        )
    known = {entry.key for entry in lut.entries}
    if not known.issuperset(network.keys()):
        _refuse(lut, name, network)
    return lut.predict(network)


def _refuse(lut: Lut, name: str, network: Network) -> None:
    """Raise UsageError if space or resolution explain why blocks of a network are missing."""
    if not isinstance(network, Arch):
        raise UsageError(
            f"{name} is a published network, not one of a search space; measure it with bench measure",
            code="not_priceable",
        )
    if network.space != lut.meta.space:
        raise UsageError(
            f"{name} is of the space {network.space}, the LUT of {lut.meta.space}; "
            f"use a LUT of {network.space} (all: bench lut list), or profile the space",
            code="wrong_space",
        )
    covered = covered_space(lut)
    if network.resolution not in covered.resolutions:
        sides = ", ".join(str(side) for side in covered.resolutions)
        raise UsageError(
            f"{name} has {network.resolution} px, the LUT covers {sides} px; "
            f"profile with --resolution {network.resolution}, or predict with --resolution "
            f"{covered.resolutions[0]}",
            code="wrong_resolution",
        )
