"""Trained weights for networks to export: of a file, or inherited from a supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.tasks.networks import Network, at_resolution, by_name
from orchestrator.tasks.options import advanced_option, network_option
from orchestrator.tasks.progress import Progress, Step
from orchestrator.winner.card import save_weights, weighted
from search.spaces import Arch, get_arch
from search.spaces.registry import is_timm


@dataclass(frozen=True, kw_only=True)
class SupernetWeights:
    """Weights inherited from a supernet; without one they are random."""

    supernet: Path | None = network_option(
        None,
        "Folder of a trained supernet (or of a network trained alone) to inherit weights from.",
        shown="random weights",
    )
    data: str | None = network_option(
        None,
        "Image source (imagefolder:DIR, cifar10:FILE). Use it if the images have moved since training.",
        metavar="SOURCE",
    )
    outside: bool = advanced_option(
        False, "Allow networks outside the part of the space that the supernet was trained on."
    )

    def check(self) -> None:
        """Raise UsageError for options that need a supernet if there is none."""
        if (self.data or self.outside) and self.supernet is None:
            raise UsageError("--data and --outside go with --supernet; add it", code="supernet_missing")


@dataclass(frozen=True, kw_only=True)
class Trained(SupernetWeights):
    """Trained weights of exactly one network's file, or inherited from a supernet; random without either."""

    file: Path | None = network_option(
        None, "Trained weights of the network, FILE.safetensors.", flag="--weights", metavar="FILE"
    )

    def __str__(self) -> str:
        """Return the source of the weights, as a table shows it."""
        return str(self.file or self.supernet or "random")


def inherit(
    networks: Mapping[str, Network],
    resolution: int | None,
    trained: SupernetWeights,
    folder: Path,
    progress: Progress,
) -> dict[str, tuple[Arch, Path]]:
    """Return networks of a supernet by name, each with the file of its weights in `folder`.

    `networks` may have any number of classes; without any it is the network that was trained alone.

    Raises:
        UsageError: a network that the supernet was not trained on, or images other than those of its training.
        InvalidArtifactError: the supernet is damaged.
    """
    if trained.supernet is None:
        raise ValueError("no supernet to inherit from")
    # brings torch, which most exports leave to their workers
    from orchestrator.tasks.supernets import check_scope, open_evaluator, trained_alone

    evaluator = open_evaluator(trained.supernet, trained.data, progress=progress)
    archs: dict[str, Arch] = {}
    for name, network in (networks or by_name(trained_alone(evaluator, trained.supernet))).items():
        sized = at_resolution(name, network, resolution)
        if isinstance(sized, str) and is_timm(evaluator.supernet.space.name):
            sized = get_arch(sized)
        if not isinstance(sized, Arch):
            raise UsageError(
                f"{name} is not of a search space, so no supernet has its weights; use --weights",
                code="not_of_a_space",
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
    """Return the spec of one network with the weights of a file.

    Raises UsageError for several networks, InvalidArtifactError for a file that can't be read or does not fit.
    """
    if len(specs) != 1:
        raise UsageError(
            f"--weights {file} holds one network's weights, but {len(specs)} are given; export one",
            code="several_networks",
        )
    from orchestrator.export.lower.source import build_module  # brings torch

    ((name, spec),) = specs.items()
    spec = weighted(spec, file)
    build_module(spec)
    return {name: spec}
