"""Recipes as TOML files: those of this package by name, one's own by path."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_bytes
from luts.format.messages import first_problem
from search.supernet.recipe.recipe import Recipe

RECIPES = Path(__file__).with_name("recipes")

MAX_RECIPE_BYTES = 64 * 1024
"""Far more than all fields and their reasons need."""

MAX_BASES = 4
"""Longest chain of `extends`, so that a circle of them ends."""


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def get_recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or from a file `….toml`; `extends = "NAME"` takes over all that a file leaves out.

    Raises:
        UsageError: unknown name.
        InvalidArtifactError: the file can't be read, is not TOML, or has a field or value that no recipe has.
    """
    path = _path(name_or_path)
    values = _values(path, MAX_BASES) | {"name": path.stem}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InvalidArtifactError(f"{path}: {first_problem(error)}; correct the recipe") from error


def changed(recipe: Recipe, options: Mapping[str, object], distillation: Mapping[str, object]) -> Recipe:
    """A recipe with other values where `options`, or for its part of that name `distillation`, has any but None.

    Raises:
        UsageError: a value that the field can't have, or that does not go with the others.
    """
    values = recipe.model_dump()
    values["distillation"] |= {name: value for name, value in distillation.items() if value is not None}
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"recipe {recipe.name}: {first_problem(error)}; choose another value") from error


def _path(name_or_path: str) -> Path:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in recipe_names():
        raise UsageError(
            f"unknown recipe {name_or_path!r}; known: {', '.join(recipe_names())}, or a file FILE.toml"
        )
    return RECIPES / f"{name_or_path}.toml"


def _values(path: Path, bases: int) -> dict[str, Any]:
    """The file's fields over those of the recipe that it extends; tables are merged field by field."""
    data = read_bytes(path, MAX_RECIPE_BYTES, "give a recipe")
    try:
        own = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(f"{path}: not TOML ({error}); correct the recipe") from error
    base = own.pop("extends", None)
    if base is None:
        return own
    if not isinstance(base, str) or bases == 0:
        raise InvalidArtifactError(f"{path}: extends: not a recipe, or too many in a row; name one recipe")
    merged = _values(_path(base), bases - 1)
    for name, value in own.items():
        table = merged.get(name)
        merged[name] = table | value if isinstance(table, dict) and isinstance(value, dict) else value
    return merged
