"""The model file of a simulated device: the network's block keys, as JSON. No runtime can take it for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.messages import first_problem
from luts.format.values import MAX_BLOCKS, Key, Value
from orchestrator.wire.model_file import ModelFile
from search.blocks import parse_keys

MAX_MODEL_BYTES = 1 << 17
"""512 keys of 160 characters with their quotes stay below."""


class SimulatedModelFile(Value):
    """What stands in the file."""

    format: Literal["blocktime-simulated-model"] = "blocktime-simulated-model"
    blocks: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_BLOCKS)]


def write_model(blocks: Sequence[str], folder: Path) -> ModelFile:
    """Write the model of these blocks into `folder`, named by its sha256: equal blocks, equal file."""
    content = SimulatedModelFile(blocks=tuple(blocks)).model_dump_json().encode()
    sha256 = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256}.json"
    path.write_bytes(content)
    return ModelFile(path, sha256)


def read_model(path: Path) -> tuple[str, ...]:
    """The block keys in a model file.

    Raises:
        InvalidArtifactError: it is not a model of a simulated device, or names a block that does not exist.
    """
    with path.open("rb") as file:
        content = file.read(MAX_MODEL_BYTES + 1)
    try:
        if len(content) > MAX_MODEL_BYTES:
            raise InvalidArtifactError(f"not a simulated model: over {MAX_MODEL_BYTES} bytes")
        blocks = SimulatedModelFile.model_validate_json(content).blocks
        parse_keys(blocks)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"not a simulated model ({first_problem(error)}); a simulated device runs lists of blocks alone"
        ) from None
    except UsageError as error:
        raise InvalidArtifactError(f"not a simulated model: {error}") from None
    return blocks
