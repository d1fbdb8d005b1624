"""Is a LUT what its samples say? Digests, schemas, then everything derived computed again and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from luts.build import build_lut, estimation_of
from luts.format.codec import ENTRIES_FILE, META_FILE, MODELS_FILE, current_columns, encode
from luts.format.errors import InvalidArtifactError
from luts.format.lut import Lut
from luts.format.schema import Entry, LutInputs, ModelSpec
from luts.format.store import read_files, read_lut
from luts.format.values import Value

TOLERANCE = 1e-9
"""Relative; other builds of the linear algebra underneath may differ in the last digits, edits don't."""


def verify_lut(folder: Path) -> Lut:
    """The LUT in `folder`, if its files agree with each other and with its samples.

    Raises InvalidArtifactError with the first thing that differs, by file, row and column.
    """
    lut = read_lut(folder)
    verify_values(lut)
    encoded = encode(lut)
    for name, content in read_files(folder).items():
        if name in (ENTRIES_FILE, MODELS_FILE) and current_columns(content) != encoded[name]:
            raise InvalidArtifactError(
                f"{name} is not written as a LUT writes it; rebuild it with bench lut rebuild"
            )
    return lut


def rebuild(lut: Lut, device_name: str = "") -> Lut:
    """What this version's estimation makes of a LUT's own samples, models and features.

    Args:
        lut: Its derived values are not looked at.
        device_name: Another name for its device.
    """
    inputs = LutInputs.of(lut.meta)
    if device_name:
        inputs = inputs.model_copy(update={"device": inputs.device.model_copy(update={"name": device_name})})
    return build_lut(
        inputs,
        [ModelSpec.of(model) for model in lut.models],
        estimation_of(lut),
        {entry.key: entry.features for entry in lut.entries},
    )


def verify_values(lut: Lut) -> None:
    """Compares every value with those of the LUT rebuilt."""
    rebuilt = rebuild(lut)
    _compare_rows(MODELS_FILE, "model_id", lut.models, rebuilt.models)
    _compare_rows(ENTRIES_FILE, "key", lut.entries, _as_told(rebuilt.entries, lut.entries))
    for place, written, expected in _differences("", lut.meta.model_dump(), rebuilt.meta.model_dump()):
        raise InvalidArtifactError(
            f"{META_FILE}: {place} is {written}, its samples give {expected}; rebuild it with bench lut rebuild"
        )


def _as_told(rebuilt: Sequence[Entry], written: Sequence[Entry]) -> Sequence[Entry]:
    """Without `identified` where a LUT is older than that column."""
    if any(entry.identified is not None for entry in written):
        return rebuilt
    return [entry.model_copy(update={"identified": None}) for entry in rebuilt]


def _compare_rows(name: str, label: str, written: Sequence[Value], expected: Sequence[Value]) -> None:
    if [getattr(row, label) for row in written] != [getattr(row, label) for row in expected]:
        raise InvalidArtifactError(
            f"{name}: rows are not unique and in order of {label}; rebuild it with bench lut rebuild"
        )
    for row, truth in zip(written, expected, strict=True):
        for place, value, right in _differences("", row.model_dump(), truth.model_dump()):
            raise InvalidArtifactError(
                f"{name}: {place} of {getattr(row, label)} is {value}, its samples give {right}; "
                "rebuild it with bench lut rebuild"
            )


def _differences(place: str, written: object, expected: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(written, dict) and isinstance(expected, dict) and written.keys() == expected.keys():
        for name in expected:
            yield from _differences(f"{place}.{name}".lstrip("."), written[name], expected[name])
    elif isinstance(written, tuple) and isinstance(expected, tuple) and len(written) == len(expected):
        for number, (one, other) in enumerate(zip(written, expected, strict=True)):
            yield from _differences(f"{place}[{number}]", one, other)
    elif isinstance(written, float) and isinstance(expected, float):
        if not math.isclose(written, expected, rel_tol=TOLERANCE, abs_tol=1e-12):
            yield place, written, expected
    elif written != expected:
        yield place, written, expected
