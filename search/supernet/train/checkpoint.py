"""Checkpoints of a supernet: `checkpoint.json`, and the safetensors file that it names.

The tensors are written first under a new name; replacing the JSON makes them count. A run that dies at any
moment leaves the checkpoint before or the one after, never a mixture."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError, UsageError, first_problem
from luts.format.files import read_bytes, storage_error, write_atomically
from luts.format.provenance import CodeVersion, code_version
from search.networks import build_network
from search.spaces import Arch, Space, get_space
from search.spaces.registry import is_timm
from search.spaces.scope import Scope
from search.supernet.data.images import ImageData
from search.supernet.model.supernet import Supernet
from search.supernet.model.weights_file import copy_into, misfit, read_weights, tensors_digest
from search.supernet.recipe.recipe import Recipe, only_arch, scope_of
from search.supernet.train.optimizer import Optimizer, WeightAverage
from search.supernet.train.teacher import timm_weights

INFO_FILE = "checkpoint.json"

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Room for the class names of the largest data set."""

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


CHANGEABLE: tuple[Literal["learning_rate"], Literal["clip_norm"]] = ("learning_rate", "clip_norm")
"""Fields of a recipe that may change while a run goes on, so that one that diverged can go on more slowly."""


class Change(BaseModel):
    """A field of the recipe that was another until a step was done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0)
    field: Literal["learning_rate", "clip_norm"]
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.field} was {self.before:g} until step {self.step}, now {self.after:g}"


class CheckpointInfo(BaseModel):
    """What `checkpoint.json` says; from format 2 on, beside its fields, its own sha256.

    Attributes:
        scope: What of the space is trained; None in a checkpoint from before this was written.
        image_side: Side in pixels to which images were cut before augmentation.
        step: Optimizer steps done; with the recipe's seed it fixes all random numbers to come.
        init: Where the first weights came from; None where they were random.
        init_sha256: Of those of them that were taken over, a classifier that is new left out.
        held_out_top1: Mean accuracy of a few fixed subnets on images held out, by which `best` is chosen.
        scaler: State of the loss scale of fp16.
        changes: Of the recipe, which is the last one, while the run went on.
        code: What trained it last.
        weights_sha256: Digest of the weights that subnets inherit, the identity of the trained supernet.
        tensors_sha256: Digest of the file `tensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 2
    space: str = Field(max_length=96)
    space_digest: _Sha256
    classes: tuple[str, ...] = Field(min_length=1, max_length=65_536)
    recipe: Recipe
    scope: Scope | None = None
    step: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=1)
    loss: float | None
    source: str = Field(max_length=4096)
    data_digest: _Sha256
    split_seed: int
    split_fraction: float = Field(gt=0, lt=0.5)
    image_side: int = Field(ge=1, le=65_536)
    teacher: str | None = Field(default=None, max_length=4096)
    init: str | None = Field(default=None, max_length=4096)
    init_sha256: _Sha256 | None = None
    held_out_top1: float | None = Field(default=None, ge=0, le=1)
    scaler: dict[str, int | float] = Field(default={}, max_length=16)
    changes: tuple[Change, ...] = Field(default=(), max_length=10_000)
    code: CodeVersion | None = None
    weights_sha256: _Sha256
    tensors: str = Field(pattern=r"^supernet-[0-9a-f]{16}\.safetensors$")
    tensors_sha256: _Sha256

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.step >= self.recipe.epochs * self.steps_per_epoch


_OF_A_RUN = {
    "recipe": "recipe",
    "data_digest": "images",
    "split_seed": "split",
    "split_fraction": "split",
    "image_side": "image side",
    "teacher": "teacher",
    "init_sha256": "start (--init)",
}
"""Fields that stay the same in a run, and what people call them."""


def fields_of_run(
    space: Space, recipe: Recipe, data: ImageData, steps_per_epoch: int, teacher: str | None
) -> dict[str, Any]:
    """The fields of `CheckpointInfo` that are the same in all checkpoints of a run; `teacher` by its name."""
    return {
        "space": space.name,
        "space_digest": get_space(space.name).digest,
        "classes": data.source.classes,
        "recipe": recipe,
        "scope": scope_of(recipe, space.with_classes(len(data.source.classes))),
        "steps_per_epoch": steps_per_epoch,
        "source": data.source.name,
        "data_digest": data.source.digest,
        "split_seed": data.seed,
        "split_fraction": data.fraction,
        "image_side": data.side,
        "teacher": teacher,
    }


def check_same_run(directory: Path, info: CheckpointInfo, fields: Mapping[str, Any]) -> None:
    """`UsageError` that names what differs where a checkpoint is not of the run with these `fields_of_run`.

    What `changes_in` tells may differ, unless the run is finished.
    """
    if info.space_digest != fields["space_digest"] and info.recipe.resolutions == "space":
        raise UsageError(
            f"{directory} holds a run at the resolutions that {info.space} had then; use another directory"
        )
    if not info.finished:
        now: dict[str, float] = {field: getattr(fields["recipe"], field) for field in CHANGEABLE}
        info = info.model_copy(update={"recipe": info.recipe.model_copy(update=now)})
    differing = next((f for f in _OF_A_RUN if getattr(info, f) != fields[f]), None)
    if differing is None:
        return
    detail = ""
    if differing == "recipe":
        before, now = info.recipe.model_dump(mode="json"), fields["recipe"].model_dump(mode="json")
        name = next(name for name in now if now[name] != before[name])
        detail = f": {name} was {before[name]}, now {now[name]}"
    raise UsageError(
        f"{directory} holds a run with another {_OF_A_RUN[differing]}{detail}; "
        "repeat its options or use another directory"
    )


def changes_in(info: CheckpointInfo, recipe: Recipe) -> tuple[Change, ...]:
    """What changes where a run goes on from a checkpoint with this recipe."""
    return tuple(
        Change(step=info.step, field=field, before=before, after=after)
        for field in CHANGEABLE
        if (before := getattr(info.recipe, field)) != (after := getattr(recipe, field))
    )


def write_info(directory: Path, info: CheckpointInfo) -> None:
    """Write `checkpoint.json`, sealed; raises OSError."""
    document = json.loads(info.model_dump_json())
    document["sha256"] = _digest(document)
    write_atomically(directory / INFO_FILE, json.dumps(document, indent=1).encode())


def read_info(directory: Path) -> CheckpointInfo:
    """What a checkpoint says of itself.

    Raises:
        InvalidArtifactError: there is none, it is damaged or edited, or of a space that has changed since.
    """
    path = directory / INFO_FILE
    try:
        document = json.loads(read_bytes(path, MAX_JSON_BYTES, "make one with `bench train`"))
        sealed = document.pop("sha256", None) if isinstance(document, dict) else None
        info = CheckpointInfo.model_validate_json(json.dumps(document))
    except (ValueError, RecursionError) as error:
        why = first_problem(error, "JSON") if isinstance(error, ValidationError) else f"not JSON: {error}"
        raise InvalidArtifactError(f"{path}: invalid ({why}); make one with `bench train`") from error
    if (sealed is not None or document.get("format") == 2) and sealed != _digest(document):
        raise InvalidArtifactError(
            f"{path}: edited since it was written; restore it, or train in another folder"
        )
    if info.space_digest not in get_space(info.space).digests:
        raise InvalidArtifactError(f"{path}: the space {info.space} has changed since; train again")
    return info


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


MAX_TENSOR_BYTES = 16 * 1024**3
"""Over a hundred times the largest registered space with its optimizer state."""


@dataclass(frozen=True)
class TrainingState:
    """The tensors of a run: what training goes on from, and what subnets inherit."""

    supernet: Supernet
    optimizer: Optimizer
    average: WeightAverage | None = None

    @property
    def inherited(self) -> dict[str, Tensor]:
        """Averaged weights where there are any, else the weights."""
        if self.average is not None:
            return self.average.tensors
        return {name: value.detach() for name, value in self.supernet.named_parameters()}


def save_checkpoint(directory: Path, state: TrainingState, fields: Mapping[str, Any]) -> CheckpointInfo:
    """Write a checkpoint over the one in `directory`; `fields`: of its info, all but those of the tensors.

    Raises:
        StorageError: nothing could be written (disk full, no permission); the one before stays whole.
    """
    tensors = {f"weights/{name}": value.detach() for name, value in state.supernet.named_parameters()}
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.state_tensors().items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.tensors.items()}
    data = save(tensors)
    tensors_sha256 = hashlib.sha256(data).hexdigest()
    info = CheckpointInfo(
        **fields,
        weights_sha256=tensors_digest(state.inherited),
        tensors=f"supernet-{tensors_sha256[:16]}.safetensors",
        tensors_sha256=tensors_sha256,
    )
    try:
        write_atomically(directory / info.tensors, data)
        write_info(directory, info)
        for old in directory.glob("supernet-*.safetensors"):
            if old.name != info.tensors:
                old.unlink()
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot save the checkpoint ({error.strerror}); the one before is kept, free some space"
        ) from error
    return info


def load_supernet(directory: Path) -> tuple[Supernet, CheckpointInfo]:
    """The trained supernet of a checkpoint.

    Raises:
        InvalidArtifactError: the checkpoint is missing, truncated or of another space.
    """
    info = read_info(directory)
    supernet = Supernet(get_space(info.space).with_classes(len(info.classes)))
    tensors = _read_tensors(directory, info)
    _load_weights(supernet, _under("average/", tensors) or _under("weights/", tensors), info)
    return supernet, info


def resume(directory: Path, state: TrainingState) -> CheckpointInfo:
    """Put a checkpoint into the state of a run in the same space; raises like `load_supernet`."""
    info = read_info(directory)
    space = state.supernet.space
    if (info.space, len(info.classes)) != (space.name, space.default_classes):
        raise InvalidArtifactError(
            f"{directory}: checkpoint of {info.space} with {len(info.classes)} classes, not of "
            f"{space.name} with {space.default_classes}; use another directory"
        )
    tensors = _read_tensors(directory, info)
    _load_weights(state.supernet, _under("weights/", tensors), info)
    state.optimizer.load_state_tensors(_under("optimizer/", tensors))
    if state.average is not None:
        state.average.load(_under("average/", tensors))
    return info


def _read_tensors(directory: Path, info: CheckpointInfo) -> dict[str, Tensor]:
    path = directory / info.tensors
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_TENSOR_BYTES} bytes; this is not a checkpoint of ours"
            )
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != info.tensors_sha256:
            raise InvalidArtifactError(f"{path}: truncated or edited; copy it again or train again")
        tensors: dict[str, Tensor] = load(data)
        return tensors
    except (OSError, SafetensorError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error}); train again") from error


def _load_weights(supernet: Supernet, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    refusal = f"{info.tensors}: weights of another supernet than {info.space}'s; train again"
    copy_into(dict(supernet.named_parameters()), weights, refusal)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


BEST = "best"
"""Folder, in that of a run, of its best checkpoint."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run is saved and goes on from.

    Attributes:
        fields: What `checkpoint_info.fields_of_run` gives for the run.
    """

    directory: Path
    state: TrainingState
    fields: Mapping[str, Any]

    def resume(self) -> CheckpointInfo | None:
        """Put the last checkpoint into the state; None where there is none.

        Raises:
            InvalidArtifactError: it is damaged or of another space.
            UsageError: it is of another run.
        """
        if not (self.directory / INFO_FILE).exists():
            return None
        info = resume(self.directory, self.state)
        check_same_run(self.directory, info, self.fields)
        return info

    def save(
        self,
        step: int,
        loss: float | None,
        scaler: Mapping[str, Any],
        held_out_top1: float,
        changes: tuple[Change, ...] = (),
    ) -> CheckpointInfo:
        """Write the checkpoint, and the best one where this is better than that; raises StorageError."""
        fields = {
            **self.fields,
            "step": step,
            "loss": loss,
            "scaler": scaler,
            "held_out_top1": held_out_top1,
            "changes": changes,
            "code": code_version(),
        }
        best = self.directory / BEST
        if not (best / INFO_FILE).exists() or held_out_top1 > (read_info(best).held_out_top1 or 0.0):
            save_checkpoint(best, self.state, fields)
        return save_checkpoint(self.directory, self.state, fields)


class BusyFolderError(BlocktimeError):
    """Another process trains there."""


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Within, no other process trains in `folder`, which is made where there is none.

    The folder itself is locked, so that nothing is left behind; the system lets it go when this process ends, in
    whatever way. Where a file system has no locks, nothing is held.

    Raises:
        BusyFolderError: another process trains there.
        StorageError: the folder can't be made or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(f"cannot train in {folder}", error, "choose another folder") from error
    try:
        _lock(opened, folder)
        yield
    finally:
        os.close(opened)


def _lock(opened: int, folder: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyFolderError(
            f"another process trains in {folder}; wait for it, stop it, or choose another folder"
        ) from None
    except OSError:
        return  # no locks on this file system


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
        if excluded := info.scope.excluded_property(own):
            raise UsageError(
                f"--init {source}: {only.space} with {excluded} lies outside of what it was trained on: "
                f"{info.scope}; choose another network"
            )
