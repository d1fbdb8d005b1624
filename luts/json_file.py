"""Reading JSON values that were written by others."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from luts.errors import InvalidArtifactError

Model = TypeVar("Model", bound=BaseModel)


def read_json(path: Path, model: type[Model], max_bytes: int, remedy: str) -> Model:
    """A value from its JSON file.

    Raises:
        InvalidArtifactError: missing, over `max_bytes` or against the schema; ends with `remedy`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(data) > max_bytes:
        raise InvalidArtifactError(f"{path}: over {max_bytes} bytes; is this the right file?")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise InvalidArtifactError(f"{path}: invalid ({where}: {first['msg']}); {remedy}") from error
