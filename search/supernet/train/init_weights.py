"""Initial weights of a run: of a trained supernet, of one network's file, or of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError, UsageError
from search.networks import build_network
from search.spaces import Arch
from search.spaces.registry import is_timm
from search.supernet.model.supernet import Supernet
from search.supernet.model.weights_file import misfit, read_weights, tensors_digest
from search.supernet.recipe.recipe import only_arch
from search.supernet.train.checkpoint import CheckpointInfo, load_supernet
from search.supernet.train.teacher import timm_weights


def parse_source(source: str) -> tuple[str, str]:
    """Split the text of `--init` into its kind, `supernet`, `file` or `timm`, and the folder, file or name."""
    kind, _, rest = source.partition(":")
    if kind == "supernet" and rest:
        return kind, rest
    if kind == "timm":
        return kind, source
    if source.endswith(".safetensors"):
        return "file", source
    raise UsageError(
        f"--init {source!r} does not name weights; give supernet:DIR, FILE.safetensors or timm:NAME[:FILE]",
        code="unknown_weights_source",
    )


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights of a supernet or of the one network that is trained.

    Attributes:
        source: `supernet:DIR`; or `FILE.safetensors` of the one network that is trained; or, for a network of timm,
            `timm:NAME` for weights on this machine and `timm:NAME:FILE`.
        classes: Number of classes of a new classifier, which starts at zero (Dosovitskiy et al. 2021, 3.2); timm's
            random weights for 10 classes start at three times the loss of guessing. None keeps theirs.
    """

    source: str
    classes: int | None = None

    def apply_to(self, supernet: Supernet, classes: Sequence[str], only: Arch | None) -> str:
        """Overwrite the weights of a supernet with as many classes; return the sha256 of what was copied.

        `only` is the one network that is trained, if any; weights of a file fill its slices.

        Raises:
            UsageError: no such source, classes that do not fit, or weights of another network.
            InvalidArtifactError: the weights can't be read, or do not fit; names a tensor.
        """
        count = len(classes)
        if self.classes not in (None, count):
            raise UsageError(
                f"--classes {self.classes}: the images have {count} classes, labels 0 to {count - 1}; "
                f"give --classes {count}",
                code="class_mismatch",
            )
        kind, place = parse_source(self.source)
        if kind == "supernet":
            digest = self._copy_supernet(Path(place), supernet, classes, only)
        else:
            if only is None:
                raise UsageError(
                    f"--init {self.source} has the weights of one network; name it with --arch",
                    code="missing_network",
                )
            given = timm_weights(place) if kind == "timm" else read_weights(Path(place))
            if is_timm(only.space):
                given = {f"0.{name}": value for name, value in given.items()}
            digest = self._copy_network(given, supernet, count, only)
        if self.classes:
            parameters = dict(supernet.named_parameters())
            for name in classifier_parameters(supernet):
                parameters[name].detach().zero_()
        return digest

    def _copy_supernet(
        self, folder: Path, supernet: Supernet, classes: Sequence[str], only: Arch | None
    ) -> str:
        given, info = load_supernet(folder)
        if info.space != supernet.space.name:
            raise InvalidArtifactError(
                f"--init {self.source}: weights of {info.space}, not of {supernet.space.name}; "
                "give a supernet of the same space",
                code="weights_of_another_network",
            )
        _check_trained(self.source, given, info, only)
        if self.classes is None:
            _check_classes(self.source, info.classes, classes)
        if given.own_heads and not supernet.own_heads and only is not None:
            alone = given.extract(only.with_classes(len(info.classes)))
            return self._copy_network(dict(alone.named_parameters()), supernet, len(classes), only)
        left_out = classifier_parameters(supernet) if self.classes else frozenset()
        own, tensors = (
            {name: value.detach() for name, value in weights.items() if name not in left_out}
            for weights in (dict(supernet.named_parameters()), given.weights_for(supernet))
        )
        self._check(own, tensors)
        for name, value in own.items():
            value.copy_(tensors[name])
        return tensors_digest(own)

    def _copy_network(
        self, tensors: Mapping[str, Tensor], supernet: Supernet, classes: int, only: Arch
    ) -> str:
        """Fill the slices of one network; `tensors` has its standalone names, and BN statistics are ignored."""
        classifier, parts = classifier_parameters(supernet), supernet.slices(only)
        heads = {part.name for part in parts if part.source in classifier}
        with torch.device("meta"):
            buffers = {name for name, _ in build_network(only.blocks()).named_buffers()}
        left_out = buffers | heads if self.classes else buffers
        given = {name: value for name, value in tensors.items() if name not in left_out}
        known = {len(given[name]) for name in heads & given.keys()} - {classes}
        if known:
            raise UsageError(
                f"--init {self.source}: the weights have {min(known)} classes, the images have {classes}; "
                f"add --classes {classes} for a new classifier",
                code="class_mismatch",
            )
        parameters = {name: value.detach() for name, value in supernet.named_parameters()}
        used = [part for part in parts if not (self.classes and part.name in heads)]
        self._check({part.name: part.take(parameters[part.source]) for part in used}, given)
        for part in used:
            region = part.region(parameters[part.source])
            region.copy_(given[part.name].reshape(region.shape))
        return tensors_digest(given)

    def _check(self, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        if problem := misfit(own, given):
            raise InvalidArtifactError(
                f"--init {self.source}: {problem}; give the weights of this very network",
                code="weights_of_another_network",
            )


def classifier_parameters(supernet: Supernet) -> frozenset[str]:
    """Return the names of the parameters whose shape depends on the number of classes."""
    other_space = supernet.space.with_classes(supernet.space.default_classes + 1)
    with torch.device("meta"):
        other = dict(Supernet(other_space, own_heads=supernet.own_heads).named_parameters())
    return frozenset(name for name, value in supernet.named_parameters() if value.shape != other[name].shape)


def _check_classes(source: str, known: Sequence[str], classes: Sequence[str]) -> None:
    """Raise UsageError where the images do not have exactly the classes of the weights."""
    if tuple(known) == tuple(classes):
        return
    missing = next((name for name in known if name not in classes), None)
    how = f"no class {missing!r}" if missing else "its classes in another order, or more of them"
    raise UsageError(
        f"--init {source}: the weights have {len(known)} classes, and the images have {how}; "
        f"add --classes {len(classes)} for a new classifier",
        code="class_mismatch",
    )


def _check_trained(source: str, given: Supernet, info: CheckpointInfo, only: Arch | None) -> None:
    """Raise UsageError where the weights were not trained for the one network that is to be trained.

    At another resolution they are the same weights.
    """
    alone = only_arch(info.recipe, given.space)
    if alone is not None and (only is None or (only.head, only.stages) != (alone.head, alone.stages)):
        raise UsageError(
            f"--init {source}: weights of one network that was trained alone; give it with --arch "
            f"({alone.to_json()})",
            code="untrained_architecture",
        )
    if only is not None and alone is None and info.scope is not None:
        own = only.with_classes(len(info.classes)).with_resolution(info.scope.resolutions[0])
        if excluded := info.scope.excluded_property(own):
            raise UsageError(
                f"--init {source}: {only.space} with {excluded} is outside of what the supernet was trained on: "
                f"{info.scope}; choose another network",
                code="outside_scope",
            )
