"""`dense.json`: what a run of detection or segmentation says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from luts.format.errors import UsageError
from luts.format.files import read_json
from luts.format.provenance import CodeVersion
from search.dense.train.recipe import DenseRecipe
from search.spaces import Arch, arch_from_json

INFO_FILE = "dense.json"

MAX_JSON_BYTES = 1 << 20

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class DenseInfo(BaseModel):
    """What `dense.json` says.

    Attributes:
        arch: JSON of the network, its head among it.
        classes: Names of the objects' classes.
        synthetic: Whether the images are made up, which its figures must say too.
        step: Optimizer steps done; with the recipe's seed it fixes all random numbers to come.
        epoch_loss: Sum of the losses of the epoch that is begun.
        figures: Of the validation images after the last whole epoch; empty before.
        init: Where the backbone's first weights came from; None where they were random.
        weights: File of the network's weights and statistics, and its sha256.
        optimizer: The same of the optimizer's state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: Literal["detection", "segmentation"]
    arch: str = Field(max_length=65_536)
    classes: tuple[str, ...] = Field(min_length=1, max_length=254)
    recipe: DenseRecipe
    step: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=1)
    epoch_loss: float = 0.0
    figures: dict[str, float | None] = Field(default={}, max_length=16)
    source: str = Field(max_length=4096)
    data_digest: _Sha256
    synthetic: bool
    init: str | None = Field(default=None, max_length=4096)
    init_sha256: _Sha256 | None = None
    code: CodeVersion | None = None
    weights: str = Field(pattern=r"^network-[0-9a-f]{16}\.safetensors$")
    weights_sha256: _Sha256
    optimizer: str = Field(pattern=r"^optimizer-[0-9a-f]{16}\.safetensors$")
    optimizer_sha256: _Sha256

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.step >= self.recipe.epochs * self.steps_per_epoch

    @property
    def network(self) -> Arch:
        """What was trained, with as many classes as the images have."""
        return arch_from_json(self.arch)

    @property
    def title(self) -> str:
        """The images, as figures name them."""
        return f"{self.source} (SYNTHETIC images)" if self.synthetic else self.source


_OF_A_RUN = {
    "task": "task",
    "arch": "network",
    "data_digest": "images",
    "classes": "classes",
    "recipe": "recipe",
    "init_sha256": "start (--init)",
}
"""Fields that stay the same in a run, and what people call them."""


def is_dense_run(folder: Path) -> bool:
    """Whether a folder holds a run of detection or segmentation."""
    return (folder / INFO_FILE).is_file()


def read_info(folder: Path) -> DenseInfo:
    """What a run says of itself; `InvalidArtifactError` where there is none or it is damaged."""
    remedy = "make one with `bench train --task`"
    return read_json(folder / INFO_FILE, DenseInfo, MAX_JSON_BYTES, remedy)


def check_same_run(folder: Path, info: DenseInfo, fields: Mapping[str, Any]) -> None:
    """`UsageError` that names what differs where a folder is not of the run with these fields."""
    differing = next((field for field in _OF_A_RUN if getattr(info, field) != fields[field]), None)
    if differing is None:
        return
    detail = ""
    if differing == "recipe":
        before, now = info.recipe.model_dump(), fields["recipe"].model_dump()
        name = next(name for name in now if now[name] != before[name])
        detail = f": {name} was {before[name]}, now {now[name]}"
    raise UsageError(
        f"{folder} holds a run with another {_OF_A_RUN[differing]}{detail}; "
        "repeat its options or use another directory"
    )
