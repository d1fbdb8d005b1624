"""Trained weights for networks to export: of a file, or inherited from a supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.tasks.networks import Network, at_resolution, by_name
from orchestrator.tasks.progress import Progress, Step
from orchestrator.winner.card import save_weights, weighted
from search.spaces import Arch, get_arch
from search.spaces.registry import is_timm


@dataclass(frozen=True)
class Trained:
    """Where trained weights come from; without a file and a supernet they are random.

    Attributes:
        file: A safetensors file of one network's weights, all of them and no others.
        supernet: Folder of a trained supernet, or of a network that was trained alone.
        data: Text of the image source that it was trained on, where the images lie elsewhere now.
        outside: Whether networks may inherit weights that the supernet was not trained on.
    """

    file: Path | None = None
    supernet: Path | None = None
    data: str | None = None
    outside: bool = False

    def __str__(self) -> str:
        """Where from, in a table."""
        return str(self.file or self.supernet or "random")


def inherit(
    networks: Mapping[str, Network],
    resolution: int | None,
    trained: Trained,
    folder: Path,
    progress: Progress,
) -> dict[str, tuple[Arch, Path]]:
    """Networks of a supernet, with files of their weights, which are written to `folder`.

    Args:
        networks: Of the supernet's space, with any number of classes; none for the one that was trained alone.
        resolution: Side of the input image; their own by default.
        trained: Names the supernet.
        folder: Where the files are to lie.
        progress: Told of each network.

    Raises:
        UsageError: a network that the supernet does not train, or images that are not those of its training.
        InvalidArtifactError: the supernet is damaged.
    """
    if trained.supernet is None:
        raise ValueError("no supernet to inherit from")
    # brings torch, which most exports leave to their workers
    from orchestrator.tasks.evaluate import check_scope, open_evaluator, trained_alone

    evaluator = open_evaluator(trained.supernet, trained.data, progress=progress)
    archs: dict[str, Arch] = {}
    for name, network in (networks or by_name(trained_alone(evaluator, trained.supernet))).items():
        sized = at_resolution(name, network, resolution)
        if isinstance(sized, str) and is_timm(evaluator.supernet.space.name):
            sized = get_arch(sized)
        if not isinstance(sized, Arch):
            raise UsageError(
                f"{name} is not of a search space, so no supernet has its weights; use --weights"
            )
        archs[name] = sized.with_classes(evaluator.data.classes)
        if not trained.outside:
            check_scope(archs[name], trained.supernet, evaluator.info)
    files = {}
    for done, (name, arch) in enumerate(archs.items()):
        progress(Step(f"statistics of {name}", done, len(archs)))
        files[name] = arch, save_weights(evaluator, arch, folder)
    return files


def of_file(specs: Mapping[str, ExportSpec], file: Path) -> dict[str, ExportSpec]:
    """The spec of one network with the weights of a file.

    Raises:
        UsageError: several networks, or none.
        InvalidArtifactError: the file can't be read, or its weights are not those of the network.
    """
    if len(specs) != 1:
        raise UsageError(f"--weights {file} are those of one network, not of {len(specs)}; export one")
    from orchestrator.export.lower.source import build_module  # brings torch

    ((name, spec),) = specs.items()
    spec = weighted(spec, file)
    build_module(spec)
    return {name: spec}
