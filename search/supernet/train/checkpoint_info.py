"""What a checkpoint says of itself, `checkpoint.json`: whose weights they are, and how far training is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from luts.format.atomic_file import write_atomically
from luts.format.code_version import CodeVersion
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_bytes
from luts.format.messages import first_problem
from search.spaces import Space, get_space
from search.spaces.scope import Scope
from search.supernet.data.images import ImageData
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.scope import scope_of

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
