"""Verify a LUT: digests, schemas, then every derived value recomputed from its samples and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.build import build_lut, estimates_of
from luts.format.errors import InvalidArtifactError
from luts.format.lut import ENTRIES_FILE, META_FILE, MODELS_FILE, Lut, current_columns, encode
from luts.format.schema import Entry, LutInputs, ModelSpec, TransferSource, Value
from luts.format.store import LutStore, digest_of, read_files, read_lut
from luts.published import list_published, read_published


@dataclass(frozen=True)
class SourceCheck:
    """A source of a LUT; `here` names the LUT or table on this machine with its digest, "" without one."""

    name: str
    digest: str
    here: str

    def __str__(self) -> str:
        """Return the result of the check in one line."""
        if not self.here:
            return (
                f"{self.name} ({self.digest[:12]}) is not on this machine; its entries in lut.json were used"
            )
        return f"{self.name} compared with {self.here}"


@dataclass(frozen=True)
class _SourceContent:
    """Name, terms (provenance, base and transfer) and entries of a LUT or published table."""

    name: str
    terms: tuple[str, float, float]
    entry_ms: Mapping[str, float]


def check_sources(lut: Lut, store: LutStore) -> list[SourceCheck]:
    """Compare each source with the LUT or published table of its digest, where `store` has it.

    Verification needs none of them: a LUT stores the entries that it was learned from.

    Raises:
        InvalidArtifactError: the store has one with that digest and other entries.
    """
    if not lut.meta.sources:
        return []
    here = {digest_of(ref): ref for ref in store.list()}
    checks = []
    for source in lut.meta.sources:
        original = None
        if source.measured == "published":
            original = _published(source.digest, store)
        elif source.digest in here:
            original = _measured(str(here[source.digest]), store.load(here[source.digest]))
        if original is not None:
            _compare(lut, source, original)
        checks.append(SourceCheck(source.name, source.digest, original.name if original else ""))
    return checks


def _measured(name: str, lut: Lut) -> _SourceContent:
    meta = lut.meta
    terms = (meta.measured, meta.base_ms, meta.transfer_ms_per_mib)
    return _SourceContent(name, terms, {entry.key: entry.ms for entry in lut.entries})


def _published(digest: str, store: LutStore) -> _SourceContent | None:
    for path in list_published(store.roots).values():
        try:
            table = read_published(path)
        except InvalidArtifactError:
            continue
        if table.digest == digest:
            return _SourceContent(str(table), ("published", 0.0, 0.0), table.entry_ms)
    return None


def _compare(lut: Lut, source: TransferSource, original: _SourceContent) -> None:
    pairs = zip(lut.entries, source.entry_ms, strict=True)
    wrong = next((entry.key for entry, ms in pairs if ms != original.entry_ms.get(entry.key)), "")
    if (source.measured, source.base_ms, source.transfer_ms_per_mib) != original.terms:
        wrong = wrong or "base or transfer"
    if wrong:
        raise InvalidArtifactError(
            f"lut.json: {wrong} of its source {source.name} differs from {original.name}, which has that digest; "
            "the LUT was edited, get it again from its origin",
            code="source_differs",
        )


TOLERANCE = 1e-9
"""Relative; other builds of the linear algebra libraries may differ in the last digits, edits differ more."""


def verify_lut(folder: Path) -> Lut:
    """Return the LUT in a folder if its files agree with each other and with its samples.

    Raises:
        InvalidArtifactError: they differ; the message names file, row and column of the first difference.
    """
    lut = read_lut(folder)
    verify_values(lut)
    encoded = encode(lut)
    for name, content in read_files(folder).items():
        if name in (ENTRIES_FILE, MODELS_FILE) and current_columns(content) != encoded[name]:
            raise InvalidArtifactError(
                f"{name} is not in canonical form; rebuild it with bench lut rebuild", code="not_canonical"
            )
    return lut


def rebuild(lut: Lut, device_name: str = "") -> Lut:
    """Return a LUT built again from another's samples, models and features by the current estimation.

    Args:
        lut: The LUT; its derived values are not used.
        device_name: A new name for its device.
    """
    inputs = LutInputs.of(lut.meta)
    if device_name:
        inputs = inputs.model_copy(update={"device": inputs.device.model_copy(update={"name": device_name})})
    return build_lut(
        inputs,
        [ModelSpec.of(model) for model in lut.models],
        estimates_of(lut),
        {entry.key: entry.features for entry in lut.entries},
    )


def verify_values(lut: Lut) -> None:
    """Compare every value with the LUT rebuilt. Raises InvalidArtifactError: one differs."""
    rebuilt = rebuild(lut)
    _compare_rows(MODELS_FILE, "model_id", lut.models, rebuilt.models)
    _compare_rows(ENTRIES_FILE, "key", lut.entries, _without_newer_columns(rebuilt.entries, lut.entries))
    for place, written, expected in _differences("", lut.meta.model_dump(), rebuilt.meta.model_dump()):
        raise InvalidArtifactError(
            f"{META_FILE}: {place} is {written}, its samples give {expected}; rebuild it with bench lut rebuild",
            code="not_from_samples",
        )


def _without_newer_columns(rebuilt: Sequence[Entry], written: Sequence[Entry]) -> Sequence[Entry]:
    """Return rebuilt entries without `identified` if the LUT is older than that column."""
    if any(entry.identified is not None for entry in written):
        return rebuilt
    return [entry.model_copy(update={"identified": None}) for entry in rebuilt]


def _compare_rows(name: str, label: str, written: Sequence[Value], expected: Sequence[Value]) -> None:
    if [getattr(row, label) for row in written] != [getattr(row, label) for row in expected]:
        raise InvalidArtifactError(
            f"{name}: rows are not unique and in order of {label}; rebuild it with bench lut rebuild",
            code="not_from_samples",
        )
    for row, truth in zip(written, expected, strict=True):
        for place, value, right in _differences("", row.model_dump(), truth.model_dump()):
            raise InvalidArtifactError(
                f"{name}: {place} of {getattr(row, label)} is {value}, its samples give {right}; "
                "rebuild it with bench lut rebuild",
                code="not_from_samples",
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
