"""Spaces and architectures by name."""

from __future__ import annotations

import json
from pathlib import Path

from luts.errors import InvalidArtifactError, UsageError
from search.spaces import autovit, efficientvit, mobilevit
from search.spaces.arch import Arch
from search.spaces.space import Space

MAX_ARCH_BYTES = 64 * 1024
"""Largest architecture file that is read; the largest of a registered space has under 1 KiB."""

_SPACES = {space.name: space for space in (*autovit.SPACES, *mobilevit.SPACES, *efficientvit.SPACES)}
_ARCHS = {**autovit.PAPER_ARCHS, **mobilevit.PAPER_ARCHS, **efficientvit.PAPER_ARCHS}


def list_spaces() -> tuple[Space, ...]:
    """All registered spaces."""
    return tuple(_SPACES.values())


def list_archs() -> dict[str, Arch]:
    """All named architectures."""
    return dict(_ARCHS)


def get_space(name: str) -> Space:
    """A space by name; `UsageError` names the known ones."""
    if name not in _SPACES:
        raise UsageError(f"unknown space {name!r}; known: {', '.join(_SPACES)}")
    return _SPACES[name]


def get_arch(name: str) -> Arch:
    """A named architecture; `UsageError` names the known ones."""
    if name not in _ARCHS:
        raise UsageError(f"unknown architecture {name!r}; known: {', '.join(_ARCHS)}, or a JSON file")
    return _ARCHS[name]


def arch_from_json(text: str) -> Arch:
    """An architecture of its JSON text.

    Raises:
        InvalidArtifactError: no JSON object, or over 64 KiB.
        UsageError: unknown space, or a value that is no choice of it.
    """
    if len(text) > MAX_ARCH_BYTES:
        raise InvalidArtifactError(f"architecture of over {MAX_ARCH_BYTES} bytes; is this the right file?")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(f"architecture is no JSON ({error}); see `bench arch show`") from error
    if not isinstance(document, dict) or not isinstance(document.get("space"), str):
        raise InvalidArtifactError("architecture is no JSON object with a `space`; see `bench arch show`")
    return get_space(document["space"]).from_document(document)


def load_arch(name_or_path: str) -> Arch:
    """A named architecture, or one read from a JSON file."""
    path = Path(name_or_path)
    if name_or_path in _ARCHS or path.suffix != ".json":
        return get_arch(name_or_path)
    try:
        with path.open(encoding="utf-8") as file:
            return arch_from_json(file.read(MAX_ARCH_BYTES + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(f"{path}: cannot read the architecture ({error})") from error
