"""Networks to compare, each with weights of its own, as files of weights that exports take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.networks import Network, as_named, at_resolution, named_network, read_network, spec_of
from orchestrator.tasks.progress import Progress, Step
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.card import weighted
from search.blocks.timm_networks import WIDTHS, native_side
from search.spaces import Arch, is_arch_file
from search.supernet.data.images import IMAGENET, Normalization


@dataclass(frozen=True)
class Candidate:
    """A network with weights.

    Attributes:
        network: At the resolution at which it is compared.
        weights: A safetensors file; None for random ones.
        normalization: Of its images: timm's own for timm's networks, ImageNet's for ours and for what was trained
            here.
        side: Pixels to which images of mixed sizes are cut first.
    """

    network: Network
    weights: Path | None
    normalization: Normalization
    side: int

    def spec(self, variant: Variant, fp32: Sequence[str] = ()) -> ExportSpec:
        """How it is exported, `fp32` as of `spec_of`."""
        spec = spec_of(self.network, variant, fp32)
        return weighted(spec, self.weights) if self.weights else spec


def read_candidates(
    texts: Sequence[str],
    folder: Path,
    *,
    supernet: Path | None = None,
    resolution: int | None = None,
    images: ImageSet | None = None,
    progress: Progress,
) -> dict[str, Candidate]:
    """Networks by what they are called in tables.

    Args:
        texts: Each `NETWORK[:WEIGHTS]`: a named network, the JSON file of an architecture or `timm:NAME[@PX]`;
            weights are a .safetensors file, or the folder of a training. Those of `timm:NAME` alone are its
            package's, or timm's on this machine.
        folder: Where files of weights go that have to be made.
        supernet: Folder of the training that has the weights of architectures without a text for them.
        resolution: Side of the input image for all of them; their own by default.
        images: That they are judged on; without any, networks may have random weights.
        progress: Told of networks whose BN statistics are taken.

    Raises:
        UsageError: there is no such network, it has no weights, or they were trained on some of the images.
        InvalidArtifactError: weights are damaged.
    """
    parts = {text: split_weights(text) for text in dict.fromkeys(texts)}
    heads = [network for network, _ in parts.values()]
    found = {}
    for number, (text, (network, weights)) in enumerate(parts.items()):
        name = network if heads.count(network) == 1 else text
        progress(Step(f"weights of {name}", number, len(parts)))
        found[name] = _candidate(network, weights, folder, supernet, resolution, images, progress)
    return found


def split_weights(text: str) -> tuple[str, str]:
    """`NETWORK:WEIGHTS` in two, the second empty where there are none."""
    if text.startswith("timm:"):
        name, _, weights = text.removeprefix("timm:").partition(":")
        return f"timm:{name}", weights
    network, colon, weights = text.rpartition(":")
    return (network, weights) if colon else (text, "")


def split_of(texts: Sequence[str], supernet: Path | None) -> tuple[int, float]:
    """Seed and share by which the first training that is named divided its images; those of `bench train` else."""
    from search.supernet.train.checkpoint import read_info

    folders = [Path(weights) for _, weights in map(split_weights, texts) if weights]
    for folder in filter(Path.is_dir, [*folders, *([supernet] if supernet else [])]):
        info = read_info(folder)
        return info.split_seed, info.split_fraction
    return 0, 0.1


def _candidate(
    text: str,
    weights: str,
    folder: Path,
    supernet: Path | None,
    resolution: int | None,
    images: ImageSet | None,
    progress: Progress,
) -> Candidate:
    network = at_resolution(
        text, read_network(text) if is_arch_file(text) else named_network(text), resolution
    )
    trained = Path(weights) if weights else supernet if isinstance(network, Arch) else None
    if trained is not None and trained.is_dir():
        return _inherited(text, network, trained, folder, images, progress)
    if isinstance(network, str):
        name = network.removeprefix("timm:")
        normalization, side = seen_by_timm(name)
        if trained is None and images is not None:
            trained = _packaged(name.partition("@")[0], folder)
        return Candidate(network, trained and _file(text, trained), normalization, side)
    if trained is None and images is not None:
        raise UsageError(
            f"{text} has no weights; add them as {text}:FILE.safetensors, or :DIR or --supernet DIR of a training"
        )
    return Candidate(network, trained and _file(text, trained), IMAGENET, network.resolution)


def seen_by_timm(network: str) -> tuple[Normalization, int]:
    """How timm says that images are normalised for `NAME[@PX]`, and the side of its input."""
    import timm

    name, _, side = network.partition("@")
    own = native_side(name)
    config = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0])
    return Normalization(tuple(config.mean), tuple(config.std)), int(side or own)


def _file(text: str, weights: Path) -> Path:
    """The file, looked at no further: the exporter names tensors that do not fit."""
    if weights.suffix == ".safetensors" and weights.is_file():
        return weights
    if not weights.exists():
        raise InvalidArtifactError(f"{text}: no weights {weights}; check the path")
    raise UsageError(f"{text}: {weights} is not a .safetensors file; write the state dict as one")


def _packaged(name: str, folder: Path) -> Path:
    """Weights that timm's network has on this machine, as a file."""
    from safetensors.torch import save_file

    from search.supernet.train.teacher import timm_weights

    path = folder / f"timm-{name}.safetensors"
    if not path.exists():
        state = timm_weights(f"timm:{name}")
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file({tensor: value.contiguous() for tensor, value in state.items()}, partial)
        partial.replace(path)
    return path


def _inherited(
    text: str, network: Network, supernet: Path, folder: Path, images: ImageSet | None, progress: Progress
) -> Candidate:
    """Of a training: its BN statistics are taken on the images that it was trained on, wherever these lie."""
    from search.supernet.data.images import split_source
    from search.supernet.train.checkpoint import read_info

    info = read_info(supernet)
    own = images is not None and images.digest == info.data_digest
    if own and images is not None:
        training = split_source(images.data.source, info.split_seed, info.split_fraction).train
        if seen := len(set(training.tolist()) & set(images.indices.tolist())):
            raise UsageError(
                f"{text} was trained on {seen} of the {len(images.indices)} images; compare on others, "
                "such as --split validation"
            )
    trained = Trained(supernet=supernet, data=images.source if own and images else None)
    made: Mapping[str, tuple[Arch, Path]] = inherit(
        {text: network}, None, trained, folder / info.weights_sha256[:16], progress
    )
    ((arch, path),) = made.values()
    return Candidate(as_named(arch), path, IMAGENET, info.image_side)
