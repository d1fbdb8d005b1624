"""Weights that a run begins with instead of random ones: of a supernet, or of one network in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError, UsageError
from search.networks import build_network
from search.spaces import Arch
from search.spaces.whole import is_timm
from search.supernet.model.supernet import Supernet
from search.supernet.model.tensors import tensors_digest
from search.supernet.model.weights_file import misfit, read_weights
from search.supernet.recipe.scope import only_arch
from search.supernet.teacher.weights import timm_weights
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.checkpoint_info import CheckpointInfo


@dataclass(frozen=True)
class Initial:
    """Where a run's first weights come from.

    Attributes:
        source: `supernet:DIR`; or `FILE.safetensors` of the one network that is trained; or, where that is timm's,
            `timm:NAME` for weights on this machine and `timm:NAME:FILE`.
        classes: Classes of a new classifier, which begins at zero (Dosovitskiy et al. 2021, 3.2); timm's random
            weights for 10 classes begin at three times the loss of guessing. None to keep that of the weights.
    """

    source: str
    classes: int | None = None

    def put_into(self, supernet: Supernet, classes: Sequence[str], only: Arch | None) -> str:
        """Overwrite a supernet's weights; the sha256 of what was put there.

        Args:
            supernet: Of as many classes as the images have.
            classes: Names of the images' classes.
            only: The one network that is trained, if so; where its weights come from a file, they fill its slices.

        Raises:
            UsageError: no such source, classes that do not fit, or a network that the weights are not of.
            InvalidArtifactError: the weights can't be read, or do not fit; names a tensor.
        """
        count = len(classes)
        if self.classes not in (None, count):
            raise UsageError(
                f"--classes {self.classes}: the images have {count} classes, labels 0 to {count - 1}; "
                f"give --classes {count}"
            )
        digest = self._put(supernet, classes, only)
        if self.classes:
            parameters = dict(supernet.named_parameters())
            for name in classifier_parameters(supernet):
                parameters[name].detach().zero_()
        return digest

    def _put(self, supernet: Supernet, classes: Sequence[str], only: Arch | None) -> str:
        kind, _, folder = self.source.partition(":")
        if kind == "supernet" and folder:
            return self._of_supernet(Path(folder), supernet, classes, only)
        if not self.source.endswith(".safetensors") and kind != "timm":
            raise UsageError(
                f"--init {self.source!r} are not weights; give supernet:DIR, FILE.safetensors or timm:NAME[:FILE]"
            )
        if only is None:
            raise UsageError(f"--init {self.source} has the weights of one network; name it with --arch")
        given = timm_weights(self.source) if kind == "timm" else read_weights(Path(self.source))
        if is_timm(only.space):
            given = {f"0.{name}": value for name, value in given.items()}
        return self._of_network(given, supernet, len(classes), only)

    def _of_supernet(
        self, folder: Path, supernet: Supernet, classes: Sequence[str], only: Arch | None
    ) -> str:
        given, info = load_supernet(folder)
        if info.space != supernet.space.name:
            raise InvalidArtifactError(
                f"--init {self.source}: weights of {info.space}, not of {supernet.space.name}; "
                "give a supernet of the same space"
            )
        _check_trained(self.source, given, info, only)
        if self.classes is None:
            _check_classes(self.source, info.classes, classes)
        left_out = classifier_parameters(supernet) if self.classes else frozenset()
        own, tensors = (
            {name: value.detach() for name, value in net.named_parameters() if name not in left_out}
            for net in (supernet, given)
        )
        self._check(own, tensors)
        for name, value in own.items():
            value.copy_(tensors[name])
        return tensors_digest(own)

    def _of_network(self, tensors: Mapping[str, Tensor], supernet: Supernet, classes: int, only: Arch) -> str:
        """`tensors`: by the names of the standalone network; statistics of BN are taken anew, others are fixed."""
        classifier, parts = classifier_parameters(supernet), supernet.slices(only)
        heads = {part.name for part in parts if part.source in classifier}
        with torch.device("meta"):
            buffers = {name for name, _ in build_network(only.blocks()).named_buffers()}
        left_out = buffers | heads if self.classes else buffers
        given = {name: value for name, value in tensors.items() if name not in left_out}
        known = {len(given[name]) for name in heads & given.keys()} - {classes}
        if known:
            raise UsageError(
                f"--init {self.source}: the weights know {min(known)} classes, the images have {classes}; "
                f"add --classes {classes} for a new classifier"
            )
        parameters = {name: value.detach() for name, value in supernet.named_parameters()}
        kept = [part for part in parts if not (self.classes and part.name in heads)]
        self._check({part.name: part.take(parameters[part.source]) for part in kept}, given)
        for part in kept:
            region = part.region(parameters[part.source])
            region.copy_(given[part.name].reshape(region.shape))
        return tensors_digest(given)

    def _check(self, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        if problem := misfit(own, given):
            raise InvalidArtifactError(
                f"--init {self.source}: {problem}; give the weights of this very network"
            )


def classifier_parameters(supernet: Supernet) -> frozenset[str]:
    """Names of the parameters whose shape follows the number of classes."""
    space = supernet.space
    with torch.device("meta"):
        other = dict(Supernet(space.with_classes(space.default_classes + 1)).named_parameters())
    return frozenset(name for name, value in supernet.named_parameters() if value.shape != other[name].shape)


def _check_classes(source: str, known: Sequence[str], classes: Sequence[str]) -> None:
    """`UsageError` where images have not the very classes of the weights."""
    if tuple(known) == tuple(classes):
        return
    missing = next((name for name in known if name not in classes), None)
    how = f"no class {missing!r}" if missing else "its classes in another order, or others besides"
    raise UsageError(
        f"--init {source}: the weights know {len(known)} classes, and the images have {how}; "
        f"add --classes {len(classes)} for a new classifier"
    )


def _check_trained(source: str, given: Supernet, info: CheckpointInfo, only: Arch | None) -> None:
    """`UsageError` where the one network that is to be trained is none that the weights were trained for.

    At another resolution they are the same weights.
    """
    alone = only_arch(info.recipe, given.space)
    if alone is not None and (only is None or (only.head, only.stages) != (alone.head, alone.stages)):
        raise UsageError(
            f"--init {source}: weights of one network that was trained alone; give that one with --arch "
            f"({alone.to_json()})"
        )
    if only is not None and alone is None and info.scope is not None:
        own = only.with_classes(len(info.classes)).with_resolution(info.scope.resolutions[0])
        if excluded := info.scope.excludes(own):
            raise UsageError(
                f"--init {source}: {only.space} with {excluded} lies outside of what it was trained on: "
                f"{info.scope}; choose another network"
            )
