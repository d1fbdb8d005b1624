"""JSON files: values that were written by others, and documents for people and programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from luts.format.atomic_file import write_text
from luts.format.errors import InvalidArtifactError
from luts.format.messages import first_problem

Model = TypeVar("Model", bound=BaseModel)


def read_bytes(path: Path, max_bytes: int, remedy: str) -> bytes:
    """A whole file, of any kind.

    Raises:
        InvalidArtifactError: missing, which ends with `remedy`, or over `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(data) > max_bytes:
        raise InvalidArtifactError(f"{path}: over {max_bytes} bytes; is this the right file?")
    return data


def read_json(path: Path, model: type[Model], max_bytes: int, remedy: str) -> Model:
    """A value from its JSON file.

    Raises:
        InvalidArtifactError: missing, over `max_bytes` or against the schema; ends with `remedy`.
    """
    data = read_bytes(path, max_bytes, remedy)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidArtifactError(f"{path}: invalid ({first_problem(error, 'JSON')}); {remedy}") from error


def write_json(path: Path, document: object) -> None:
    """Write a JSON file, all or nothing; `StorageError` where that fails."""
    write_text(path, json.dumps(document, indent=1) + "\n")
