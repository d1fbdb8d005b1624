"""Checkpoints: a JSON description of the run, and the safetensors files that it names.

Tensors are written first under new names; replacing the JSON makes them count. A run that dies at any moment leaves
the checkpoint before or the one after, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError
from safetensors.torch import save
from torch import Tensor

from luts.format.errors import InvalidArtifactError, StorageError, UsageError, first_problem
from luts.format.files import read_bytes, write_atomically
from luts.format.provenance import CodeVersion
from luts.format.schema import FrozenModel, Sha256
from search.spaces import get_space
from search.spaces.scope import Scope
from search.supernet.model.supernet import Supernet
from search.supernet.model.weights_file import copy_into, read_weights
from search.supernet.recipe.recipe import Recipe

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Room for the class names of the largest data set."""


class RunInfo(FrozenModel):
    """Description of a run's last checkpoint, of any task.

    Attributes:
        step: Optimizer steps done; with the recipe's seed it fixes all later random numbers.
        init: Source of the initial weights; None where they were random.
        init_sha256: Digest of the initial weights that were used.
        code: Version of the code that trained last.
    """

    FILE: ClassVar[str]
    """Name of the description."""

    TENSORS: ClassVar[Mapping[str, tuple[str, str]]]
    """Prefix of a tensor file -> the fields with its name and its digest."""

    OF_A_RUN: ClassVar[Mapping[str, str]]
    """Fields that are the same in all checkpoints of a run -> what people call them."""

    step: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=1)
    recipe: Any
    source: str = Field(max_length=4096)
    data_digest: Sha256
    init: str | None = Field(default=None, max_length=4096)
    init_sha256: Sha256 | None = None
    code: CodeVersion | None = None

    @property
    def finished(self) -> bool:
        """Whether training reached its last step."""
        return bool(self.step >= self.recipe.epochs * self.steps_per_epoch)

    def document(self) -> dict[str, Any]:
        """Return the JSON document to write."""
        return json.loads(self.model_dump_json())


InfoT = TypeVar("InfoT", bound=RunInfo)


def write_checkpoint(
    directory: Path, kind: type[InfoT], fields: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
) -> InfoT:
    """Write a checkpoint over the one in `directory`; `tensors` are by prefix of `kind.TENSORS`, then by name.

    Raises StorageError where nothing could be written (disk full, no permission); the previous one stays whole.
    """
    files: dict[str, bytes] = {}
    names: dict[str, Any] = {}
    for prefix, (name_field, digest_field) in kind.TENSORS.items():
        data = save({name: value.detach().cpu().contiguous() for name, value in tensors[prefix].items()})
        digest = hashlib.sha256(data).hexdigest()
        files[f"{prefix}-{digest[:16]}.safetensors"] = data
        names |= {name_field: f"{prefix}-{digest[:16]}.safetensors", digest_field: digest}
    info = kind(**fields, **names)
    try:
        for name, data in files.items():
            write_atomically(directory / name, data)
        write_info(directory, info)
        for prefix in kind.TENSORS:
            for old in directory.glob(f"{prefix}-*.safetensors"):
                if old.name not in files:
                    old.unlink()
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot save ({error.strerror}); free some space, the previous one is kept",
            code="checkpoint_not_saved",
        ) from error
    return info


def write_info(directory: Path, info: RunInfo) -> None:
    """Write the description alone; raises OSError."""
    write_atomically(directory / info.FILE, json.dumps(info.document(), indent=1).encode())


def read_tensors(directory: Path, info: RunInfo, prefix: str) -> dict[str, Tensor]:
    """Read a tensor file of a checkpoint; raises InvalidArtifactError where it is missing, truncated or edited."""
    name_field, digest_field = info.TENSORS[prefix]
    try:
        return read_weights(directory / getattr(info, name_field), getattr(info, digest_field))
    except InvalidArtifactError as error:
        raise InvalidArtifactError(f"{error}, or train again", code="damaged_checkpoint") from error


def check_same_run(directory: Path, info: RunInfo, fields: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the first difference, where a checkpoint is not of the run with these fields."""
    differing = next((f for f in info.OF_A_RUN if getattr(info, f) != fields[f]), None)
    if differing is None:
        return
    detail = ""
    if differing == "recipe":
        before, now = info.recipe.model_dump(mode="json"), fields["recipe"].model_dump(mode="json")
        name = next(name for name in now if now[name] != before[name])
        detail = f": {name} was {before[name]}, now {now[name]}"
    raise UsageError(
        f"{directory} has a run with another {info.OF_A_RUN[differing]}{detail}; "
        "repeat its options or use another directory",
        code="different_run",
    )


CHANGEABLE: tuple[Literal["learning_rate"], Literal["clip_norm"]] = ("learning_rate", "clip_norm")
"""Recipe fields that may change when a run resumes, so that a diverged run can go on more slowly."""


class RecipeChange(FrozenModel):
    """A recipe field that had another value until a step."""

    step: int = Field(ge=0)
    field: Literal["learning_rate", "clip_norm"]
    before: float
    after: float

    def __str__(self) -> str:
        """Return the change for people."""
        return f"{self.field} was {self.before:g} until step {self.step}, now {self.after:g}"


INFO_FILE = "checkpoint.json"

BEST = "best"
"""Folder of a run's best checkpoint, in the run's own folder."""


class CheckpointInfo(RunInfo):
    """Content of `checkpoint.json`; from format 2 on it contains its own sha256 as well.

    Attributes:
        scope: Part of the space that is trained; None in checkpoints that did not record it.
        image_side: Side in pixels to which images were cropped before augmentation.
        held_out_top1: Mean accuracy of a few fixed subnets on held-out images, by which `best` is chosen.
        scaler: State of fp16's loss scaler.
        weights_sha256: Digest of the weights that subnets inherit; identifies the trained supernet.
        tensors_sha256: Digest of the file `tensors`.
    """

    FILE: ClassVar[str] = INFO_FILE
    TENSORS: ClassVar[Mapping[str, tuple[str, str]]] = {"supernet": ("tensors", "tensors_sha256")}
    OF_A_RUN: ClassVar[Mapping[str, str]] = {
        "recipe": "recipe",
        "data_digest": "images",
        "split_seed": "split",
        "split_fraction": "split",
        "image_side": "image side",
        "teacher": "teacher",
        "init_sha256": "start (--init)",
    }

    format: Literal[1, 2] = 2
    space: str = Field(max_length=96)
    space_digest: Sha256
    classes: tuple[str, ...] = Field(min_length=1, max_length=65_536)
    recipe: Recipe
    scope: Scope | None = None
    loss: float | None
    split_seed: int
    split_fraction: float = Field(gt=0, lt=0.5)
    image_side: int = Field(ge=1, le=65_536)
    teacher: str | None = Field(default=None, max_length=4096)
    held_out_top1: float | None = Field(default=None, ge=0, le=1)
    scaler: dict[str, int | float] = Field(default={}, max_length=16)
    changes: tuple[RecipeChange, ...] = Field(default=(), max_length=10_000)
    weights_sha256: Sha256
    tensors: str = Field(pattern=r"^supernet-[0-9a-f]{16}\.safetensors$")
    tensors_sha256: Sha256

    def document(self) -> dict[str, Any]:
        """Return the JSON document with its own digest."""
        document = super().document()
        return document | {"sha256": _digest(document)}

    def changes_to(self, recipe: Recipe) -> tuple[RecipeChange, ...]:
        """Return what changes where the run resumes with this recipe."""
        return tuple(
            RecipeChange(step=self.step, field=field, before=before, after=after)
            for field in CHANGEABLE
            if (before := getattr(self.recipe, field)) != (after := getattr(recipe, field))
        )


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_info(directory: Path) -> CheckpointInfo:
    """Read the description of a supernet's checkpoint.

    Raises InvalidArtifactError if it is missing, damaged, edited, or of a space that has changed since.
    """
    path = directory / INFO_FILE
    try:
        document = json.loads(read_bytes(path, MAX_JSON_BYTES, "create one with `bench train`"))
        sealed = document.pop("sha256", None) if isinstance(document, dict) else None
        info = CheckpointInfo.model_validate_json(json.dumps(document))
    except (ValueError, RecursionError) as error:
        why = first_problem(error, "JSON") if isinstance(error, ValidationError) else f"not JSON: {error}"
        raise InvalidArtifactError(
            f"{path}: invalid ({why}); create one with `bench train`", code="invalid_checkpoint"
        ) from error
    if (sealed is not None or document.get("format") == 2) and sealed != _digest(document):
        raise InvalidArtifactError(
            f"{path}: edited since it was written; restore it, or train in another folder",
            code="edited_checkpoint",
        )
    if info.space_digest not in get_space(info.space).digests:
        raise InvalidArtifactError(
            f"{path}: the space {info.space} has changed since; train again", code="space_changed"
        )
    return info


def load_supernet(directory: Path) -> tuple[Supernet, CheckpointInfo]:
    """Load the trained supernet of a checkpoint; raises InvalidArtifactError if it is missing or damaged."""
    while True:
        info = read_info(directory)
        try:
            tensors = read_tensors(directory, info, "supernet")
        except InvalidArtifactError:
            if read_info(directory) == info:
                raise
        else:  # otherwise a training has replaced the checkpoint meanwhile
            break
    space = get_space(info.space).with_classes(len(info.classes))
    supernet = Supernet(space, own_heads=info.recipe.sampler == "exits")
    load_weights(supernet, under("average/", tensors) or under("weights/", tensors), info)
    return supernet, info


def load_weights(supernet: Supernet, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Overwrite a supernet's weights by those of a checkpoint."""
    refusal = f"{info.tensors}: weights of another supernet than {info.space}'s; train again"
    copy_into(dict(supernet.named_parameters()), weights, refusal)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
