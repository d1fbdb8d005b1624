"""What a LUT says of whole networks, and in plain words why it says nothing of one."""

from __future__ import annotations

from luts.format.errors import UsageError
from luts.format.latency import Prediction
from luts.format.lut import Lut
from orchestrator.plan.plan import classifier_note, with_classifier_prices
from orchestrator.tasks.networks import Network, Networks, at_resolution, by_name
from orchestrator.tasks.progress import Note, Progress, silent
from search.spaces import Arch
from search.spaces.scope import covered_space


def predict(
    lut: Lut, networks: Networks, resolution: int | None = None, progress: Progress = silent
) -> dict[str, Prediction]:
    """Predicted latencies by name, at a resolution where one is given, of any number of classes.

    `progress` is told where classifiers are priced that the LUT did not measure.

    Raises:
        UsageError: a network that there is not, or one that the LUT can't price; says what it would take.
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
        if said := classifier_note(lut, luts[classes], classes):
            progress(Note(said))
    return {
        name: _predicted(luts.get(network.classes, lut) if isinstance(network, Arch) else lut, name, network)
        for name, network in sized.items()
    }


def _predicted(lut: Lut, name: str, network: Network) -> Prediction:
    if isinstance(network, str):
        raise UsageError(f"{name} is not made of blocks that a LUT knows; measure it with bench measure")
    known = {entry.key for entry in lut.entries}
    if not known.issuperset(network.keys()):
        _refuse(lut, name, network)
    return lut.predict(network)


def _refuse(lut: Lut, name: str, network: Network) -> None:
    """`UsageError` where space or resolution tell why blocks of a network are missing."""
    if not isinstance(network, Arch):
        raise UsageError(
            f"{name} is a published network, of no search space as LUTs are; measure it with bench measure"
        )
    if network.space != lut.meta.space:
        raise UsageError(
            f"{name} is of the space {network.space}, the LUT of {lut.meta.space}; "
            f"use a LUT of {network.space} (all: bench lut list), or profile the space"
        )
    covered = covered_space(lut)
    if network.resolution not in covered.resolutions:
        sides = ", ".join(str(side) for side in covered.resolutions)
        raise UsageError(
            f"{name} takes {network.resolution} px, the LUT covers {sides} px; "
            f"profile with --resolution {network.resolution}, or predict with --resolution {covered.resolutions[0]}"
        )
