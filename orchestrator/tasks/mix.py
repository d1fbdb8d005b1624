"""Which blocks of a network stay fp32 in mixed precision: as people say it, or as a sensitivity pass wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.files import read_bytes, write_json
from orchestrator.export.artifacts.spec import MAX_FP32

MAX_BYTES = 4 << 20
"""Thousands of blocks with what was judged of each."""

MAX_BLOCKS = 4096

_CLASSES = re.compile(r"classes=[0-9]+")

Path_ = Annotated[str, Field(max_length=2000)]


class Mix(BaseModel):
    """What `bench sensitivity` found of a network.

    Attributes:
        blocks: Keys of the network, or
        module: `timm:NAME[@PX]`.
        fp32: Paths of modules, as of `ExportSpec`.
        judged: What it was found by, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    blocks: Annotated[tuple[Path_, ...], Field(max_length=MAX_BLOCKS)] = ()
    module: Annotated[str, Field(max_length=200)] = ""
    fp32: Annotated[tuple[Path_, ...], Field(max_length=MAX_FP32)]
    judged: dict[str, Any] = Field(default_factory=dict)

    def is_of(self, blocks: Sequence[str], module: str) -> bool:
        """Whether it is of this network, with any number of classes and any size of a timm network's input."""
        if module:
            return self.module.partition("@")[0] == module.partition("@")[0]
        return [_CLASSES.sub("", key) for key in self.blocks] == [_CLASSES.sub("", key) for key in blocks]

    def write(self, path: Path) -> None:
        """Raises StorageError where it can't be written."""
        write_json(path, self.model_dump(mode="json"))


def read_mix(path: Path) -> Mix:
    """Raises InvalidArtifactError where it is not such a file."""
    try:
        return Mix.model_validate_json(read_bytes(path, MAX_BYTES, "give the file of bench sensitivity"))
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: not a file of bench sensitivity ({first_problem(error)})"
        ) from error


def stays_fp32(said: Sequence[str], blocks: Sequence[str], module: str) -> tuple[str, ...]:
    """Paths of what stays fp32 in one network.

    Args:
        said: Each a place of a block (`4`), a path of a module (`blocks.2`), both of any network, or the JSON file
            of a sensitivity pass, which counts for its own network alone.
        blocks: Keys of the network, or
        module: `timm:NAME[@PX]`.

    Raises:
        UsageError: only files are given, and none is of this network; or one leaves nothing in fp32.
        InvalidArtifactError: a file is damaged.
    """
    paths = [text for text in said if not text.endswith(".json")]
    files = [text for text in said if text.endswith(".json")]
    mixes = {text: read_mix(Path(text)) for text in files}
    own = {text: mix for text, mix in mixes.items() if mix.is_of(blocks, module)}
    if files and not own and not paths:
        raise UsageError(
            f"--fp32 {files[0]} is of another network than {module or 'this one'}; run bench sensitivity for it"
        )
    if own and not paths and not any(mix.fp32 for mix in own.values()):
        raise UsageError(
            f"--fp32 {next(iter(own))} keeps nothing in fp32: int8 costs little enough; use --precision int8"
        )
    return tuple(paths) + tuple(path for mix in own.values() for path in mix.fp32)
