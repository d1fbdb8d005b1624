"""Verify a LUT: digests, schemas, then every derived value recomputed from its samples and compared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.build import build_lut, estimates_of
from luts.estimate.sources import SourceEntries, source_from_lut
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


def check_sources(lut: Lut, store: LutStore) -> list[SourceCheck]:
    """Compare each source with the LUT or published table of its digest, where `store` has it.

    Verification needs none of them: a LUT stores the entries that it was learned from.

    Raises InvalidArtifactError: the store has one with that digest and other entries.
    """
    here = {digest_of(ref): ref for ref in store.list()} if lut.meta.sources else {}
    checks = []
    for source in lut.meta.sources:
        original, comparable = None, True
        if source.measured == "published":
            original = _published(source.digest, store)
        elif source.digest in here:
            other = store.load(here[source.digest])
            comparable = other.meta.space == lut.meta.space  # else operators priced the blocks
            original = source_from_lut(str(here[source.digest]), other)
            if source.measured != other.meta.measured:
                raise _source_differs(source, "provenance", original)
        if original is not None and comparable:
            _compare(lut, source, original)
        checks.append(SourceCheck(source.name, source.digest, original.name if original else ""))
    return checks


def _published(digest: str, store: LutStore) -> SourceEntries | None:
    for path in list_published(store.roots).values():
        with contextlib.suppress(InvalidArtifactError):
            table = read_published(path)
            if table.digest == digest:
                return SourceEntries(str(table), table.entry_ms)
    return None


def _compare(lut: Lut, source: TransferSource, original: SourceEntries) -> None:
    for entry, ms in zip(lut.entries, source.entry_ms, strict=True):
        if ms != original.entry_ms.get(entry.key):
            raise _source_differs(source, entry.key, original)
    terms = (original.base_ms, original.transfer_ms_per_mib)
    if (source.base_ms, source.transfer_ms_per_mib) != terms:
        raise _source_differs(source, "base or transfer", original)


def _source_differs(source: TransferSource, wrong: str, original: SourceEntries) -> InvalidArtifactError:
    return InvalidArtifactError(
        f"lut.json: {wrong} of its source {source.name} differs from {original.name}, which has that digest; "
        "the LUT was edited, get it again from its origin",
        code="source_differs",
    )


TOLERANCE = 1e-9
"""Relative; other builds of the linear algebra libraries may differ in the last digits, edits differ more."""


def verify_lut(folder: Path) -> Lut:
    """Return the LUT in a folder if its files agree with each other and with its samples.

    Raises InvalidArtifactError, which names file, row and column of the first difference.
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

    Derived values of the other are not used; `device_name` renames its device.
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
