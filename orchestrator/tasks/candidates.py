"""Networks to compare, each with its own weights, as files of weights that exports take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.predictions import ImageSet
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.networks import Network, as_named, at_resolution, named_network, read_network, spec_of
from orchestrator.tasks.progress import Progress, Step
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.card import weighted
from search.blocks.timm_networks import WIDTHS, native_side
from search.dense.training import is_dense_run, read_dense_info, weights_path
from search.spaces import Arch, is_arch_file, load_arch
from search.spaces.registry import without_task
from search.supernet.data.images import IMAGENET, Normalization, split_source
from search.supernet.train.checkpoint import read_info
from search.supernet.train.teacher import timm_weights


@dataclass(frozen=True)
class Candidate:
    """A network with weights.

    Attributes:
        network: At the resolution at which it is compared.
        weights: A safetensors file; None for random weights.
        normalization: Of its images: timm's own for timm's networks, ImageNet's for ours and for what was trained
            here.
        side: Pixels to which images of mixed sizes are cropped first.
        run: Folder of its training, for detection or segmentation.
    """

    network: Network
    weights: Path | None
    normalization: Normalization
    side: int
    run: Path | None = None

    def spec(self, variant: Variant, keep_fp32: Sequence[str] = ()) -> ExportSpec:
        """Return how the network is exported; `keep_fp32` as in `spec_of`."""
        spec = spec_of(self.network, variant, keep_fp32)
        return weighted(spec, self.weights) if self.weights else spec


def dense_candidate(run: Path) -> Candidate:
    """Return the network of a training for detection or segmentation; raises like `weights_path`."""
    network = read_dense_info(run).network
    return Candidate(as_named(network), weights_path(run), IMAGENET, network.resolution, run)


def dense_candidates(texts: Sequence[str]) -> dict[str, Candidate]:
    """Return the networks of `NETWORK:DIR` texts by text; none if no folder is of detection or segmentation.

    Raises:
        UsageError: networks of several tasks, or a folder with another network than its text names.
    """
    parts = {text: split_weights(text) for text in dict.fromkeys(texts)}
    runs = {
        text: Path(weights) for text, (_, weights) in parts.items() if weights and is_dense_run(Path(weights))
    }
    if not runs:
        return {}
    infos = {text: read_dense_info(run) for text, run in runs.items()}
    if len(runs) < len(parts) or len({info.task for info in infos.values()}) > 1:
        raise UsageError(
            "these networks are of different tasks; compare networks of one task", code="different_tasks"
        )
    for text, info in infos.items():
        named, trained = (without_task(arch) for arch in (load_arch(parts[text][0]), info.network))
        same_space = named.space.partition("@")[0] == trained.space.partition("@")[0]
        if not same_space or named.stages != trained.stages:
            raise UsageError(
                f"{text}: the folder has another network, {info.network.to_json()}; name that one",
                code="different_network",
            )
    return {text: dense_candidate(run) for text, run in runs.items()}


def read_candidates(
    texts: Sequence[str],
    folder: Path,
    *,
    supernet: Path | None = None,
    resolution: int | None = None,
    images: ImageSet | None = None,
    progress: Progress,
) -> dict[str, Candidate]:
    """Read classifiers; return them by their names in tables.

    Args:
        texts: Each `NETWORK[:WEIGHTS]`: a named network, the JSON file of an architecture or `timm:NAME[@PX]`;
            weights are a .safetensors file, or the folder of a training. `timm:NAME` alone has the weights of its
            package, or timm's on this machine.
        folder: Gets the files of weights that have to be made.
        supernet: Folder of the training with the weights of architectures given without weights.
        resolution: Side of the input image for all networks; their own by default.
        images: That they are evaluated on; without any, networks may have random weights.
        progress: Gets the networks whose BN statistics are computed.

    Raises:
        UsageError: there is no such network, it has no weights, or it was trained on some of the images.
        InvalidArtifactError: weights are damaged.
    """
    parts = {text: split_weights(text) for text in dict.fromkeys(texts)}
    networks = [network for network, _ in parts.values()]
    candidates = {}
    reader = _Reader(folder, supernet, resolution, images, progress)
    for number, (text, (network, weights)) in enumerate(parts.items()):
        name = network if networks.count(network) == 1 else text
        progress(Step(f"weights of {name}", number, len(parts)))
        candidates[name] = reader.read(network, weights)
    return candidates


def split_weights(text: str) -> tuple[str, str]:
    """Split `NETWORK:WEIGHTS` in two, the second empty without weights."""
    if text.startswith("timm:"):
        name, _, weights = text.removeprefix("timm:").partition(":")
        return f"timm:{name}", weights
    network, colon, weights = text.rpartition(":")
    return (network, weights) if colon else (text, "")


def split_of(texts: Sequence[str], supernet: Path | None) -> tuple[int, float]:
    """Return seed and fraction by which the first named training divided its images; else `bench train`'s own."""
    folders = [Path(weights) for _, weights in map(split_weights, texts) if weights]
    for folder in filter(Path.is_dir, [*folders, *([supernet] if supernet else [])]):
        info = read_info(folder)
        return info.split_seed, info.split_fraction
    return 0, 0.1


@dataclass(frozen=True)
class _Reader:
    """Reads single networks; attributes as the arguments of `read_candidates`."""

    folder: Path
    supernet: Path | None
    resolution: int | None
    images: ImageSet | None
    progress: Progress

    def read(self, text: str, weights: str) -> Candidate:
        """Return a network with its weights."""
        plain = read_network(text) if is_arch_file(text) else named_network(text)
        network = at_resolution(text, plain, self.resolution)
        trained = Path(weights) if weights else self.supernet if isinstance(network, Arch) else None
        if trained is not None and trained.is_dir():
            return self._inherited(text, network, trained)
        if isinstance(network, str):
            name = network.removeprefix("timm:")
            normalization, side = seen_by_timm(name)
            if trained is None and self.images is not None:
                trained = _timm_file(name.partition("@")[0], self.folder)
            return Candidate(network, trained and _file(text, trained), normalization, side)
        if trained is None and self.images is not None:
            raise UsageError(
                f"{text} has no weights; add {text}:FILE.safetensors, or :DIR or --supernet DIR of a training",
                code="no_weights",
            )
        return Candidate(network, trained and _file(text, trained), IMAGENET, network.resolution)

    def _inherited(self, text: str, network: Network, supernet: Path) -> Candidate:
        """Return a network of a training; BN statistics are computed on the images that it was trained on."""
        info = read_info(supernet)
        images = self.images if self.images and self.images.digest == info.data_digest else None
        if images is not None:
            training = split_source(images.data.source, info.split_seed, info.split_fraction).train
            if seen := len(set(training.tolist()) & set(images.indices.tolist())):
                raise UsageError(
                    f"{text} was trained on {seen} of the {len(images.indices)} images; compare on others, "
                    "such as --split validation",
                    code="images_seen_in_training",
                )
        trained = Trained(supernet=supernet, data=images.source if images else None)
        folder = self.folder / info.weights_sha256[:16]
        ((arch, path),) = inherit({text: network}, None, trained, folder, self.progress).values()
        return Candidate(as_named(arch), path, IMAGENET, info.image_side)


def seen_by_timm(network: str) -> tuple[Normalization, int]:
    """Return timm's normalisation of images for `NAME[@PX]`, and the side of its input."""
    import timm

    name, _, side = network.partition("@")
    own = native_side(name)
    config = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0])
    return Normalization(tuple(config.mean), tuple(config.std)), int(side or own)


def _file(text: str, weights: Path) -> Path:
    """Check that a file of weights exists; the exporter names tensors that do not fit."""
    if weights.suffix == ".safetensors" and weights.is_file():
        return weights
    if not weights.exists():
        raise InvalidArtifactError(f"{text}: no weights {weights}; check the path", code="unreadable_file")
    raise UsageError(
        f"{text}: {weights} is not a .safetensors file; write the state dict as one",
        code="unknown_weights_source",
    )


def _timm_file(name: str, folder: Path) -> Path:
    """Return the weights that timm's network has on this machine, as a file."""
    from safetensors.torch import save_file

    path = folder / f"timm-{name}.safetensors"
    if not path.exists():
        state = timm_weights(f"timm:{name}")
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file({tensor: value.contiguous() for tensor, value in state.items()}, partial)
        partial.replace(path)
    return path
