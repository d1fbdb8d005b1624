"""Inputs of a report: a LUT, or all files of a run's folder, validated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import META_FILE, Lut, decode
from luts.format.schema import Digests, LutFile
from luts.format.store import LutRef, LutStore, read_files
from orchestrator.measure.validate import Validation
from orchestrator.winner.winner import MeasuredArch, MeasuredBest
from search.algorithms.finals import FINALS_FILE, Finals
from search.algorithms.record import Evaluated, SearchResult
from search.spaces import Arch, load_arch
from search.supernet.train.logs import LogRow, read_log

if TYPE_CHECKING:
    from search.supernet.train.checkpoint import CheckpointInfo

Loaded = TypeVar("Loaded")

MAX_PATH_BYTES = 4096

MAX_CURVES = 12
"""More lines than this can't be distinguished."""


@dataclass(frozen=True)
class NamedLut:
    """A LUT with its name and the digests of its files; `digest` is the sha256 of lut.json."""

    name: str
    lut: Lut
    files: Digests
    digest: str


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report may show; None or empty where missing, which `absent` lists in words."""

    lut: NamedLut | None = None
    validation: Validation | None = None
    search: SearchResult | None = None
    winner: Arch | None = None
    measured: MeasuredBest | None = None
    supernet: CheckpointInfo | None = None
    absent: tuple[str, ...] = ()
    curves: Mapping[str, tuple[LogRow, ...]] = field(default_factory=dict)
    finals: Finals | None = None

    @property
    def simulated(self) -> bool:
        """Whether any latency in the report comes from a simulated device."""
        return (self.lut is not None and self.lut.lut.meta.measured == "simulated") or (
            self.validation is not None and self.validation.measured == "simulated"
        )

    @property
    def chosen(self) -> Evaluated | None:
        """The search's row of the winner, chosen by finals, measurements or the search."""
        if self.search is None:
            return None
        text = self.winner.to_json() if self.winner else self.search.winner.arch
        return next((row for row in self.search.rows if row.arch == text), self.search.winner)

    @property
    def winner_measured(self) -> MeasuredArch | None:
        """The winner's own measurement."""
        if self.winner is None or self.measured is None:
            return None
        return self.measured.of_arch(self.winner)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Inputs that do not belong together, a sentence each."""
        found = []
        if self.lut and self.search and self.lut.digest not in self.search.price.split("+"):
            found.append("The search used another LUT than the one shown here.")
        if self.lut and self.validation and self.validation.lut != self.lut.name:
            found.append(f"The validation is of the LUT {self.validation.lut}, not of the one shown here.")
        if self.lut and self.measured and self.measured.variant != self.lut.lut.meta.variant:
            found.append(f"The networks found were measured as {self.measured.variant}, unlike the LUT.")
        return tuple(found)


def read_named_lut(ref: LutRef) -> NamedLut:
    """Read a LUT and check its digests. Raises InvalidArtifactError."""
    files = read_files(ref.path)
    lut = decode(files)
    described = LutFile.model_validate_json(files[META_FILE])
    return NamedLut(str(ref), lut, described.sha256, hashlib.sha256(files[META_FILE]).hexdigest())


def read_run(folder: Path, store: LutStore) -> ReportInputs:
    """Read all files of a run's folder, or of a search alone (`bench search -o`) with the LUT that it names.

    Raises:
        UsageError: the folder does not exist or has nothing to report, or its LUT is missing.
        InvalidArtifactError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            f"no folder {folder}; give the folder of a run, or --lut for a LUT alone", code="unknown_folder"
        )
    search_folder = folder if (folder / "result.json").exists() else folder / "search"
    absent: list[str] = []

    def read(path: Path, what: str, load: Callable[[Path], Loaded]) -> Loaded | None:
        if path.exists():
            return load(path)
        absent.append(what)
        return None

    validation = read(
        folder / "validation.json",
        "a validation of the LUT on new networks (validation.json)",
        Validation.load,
    )
    supernet = read(folder / "supernet" / "checkpoint.json", "the supernet (supernet/)", _supernet)
    search = read(search_folder / "result.json", "a search (search/result.json)", SearchResult.load)
    measured = read(
        search_folder / "measured.json",
        "measurements of the networks found (search/measured.json)",
        MeasuredBest.load,
    )
    lut = _lut_of_run(folder / "lut.txt", store) if (folder / "lut.txt").exists() else None
    if lut is None and search is not None and search_folder == folder:
        lut = _lut_of_search(search, store)
    if lut is None:
        absent.insert(0, "the LUT (lut.txt)")
    curves, winner_path = _curves(folder), search_folder / "winner.json"
    winner = search.winner.architecture() if search else None
    if winner_path.exists():
        winner = load_arch(str(winner_path))
    elif not any((validation, supernet, search, measured, lut)):
        if curves:
            return ReportInputs(curves=curves)
        raise UsageError(
            f"{folder} has nothing to report; expected the output of bench search or bench train, lut.txt, "
            "validation.json, or folders of several trainings",
            code="nothing_to_report",
        )
    finals_path = search_folder / FINALS_FILE
    finals = Finals.load(finals_path) if search and finals_path.exists() else None
    return ReportInputs(lut, validation, search, winner, measured, supernet, tuple(absent), curves, finals)


def _curves(folder: Path) -> dict[str, tuple[LogRow, ...]]:
    """Read the training logs in a folder and its subfolders, by folder; empty logs are left out.

    Raises:
        InvalidArtifactError: one is damaged, or there are more than `MAX_CURVES`.
    """
    logs = [folder / "log.csv", *sorted(folder.glob("*/log.csv"))]
    found = [log for log in logs if log.is_file()]
    if len(found) > MAX_CURVES:
        raise InvalidArtifactError(
            f"{folder} has {len(found)} trainings; a figure shows {MAX_CURVES} at most",
            code="too_many_curves",
        )
    read = {log.parent.name or str(log.parent): read_log(log) for log in found}
    return {name: rows for name, rows in read.items() if rows}


def _lut_of_run(path: Path, store: LutStore) -> NamedLut:
    try:
        with path.open("rb") as file:
            name = file.read(MAX_PATH_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(
            f"{path}: cannot be read; write the LUT's path or name into it", code="invalid_lut_name"
        ) from error
    if not 0 < len(name) <= MAX_PATH_BYTES or not name.isprintable():
        raise InvalidArtifactError(
            f"{path}: has no path or name of a LUT; write it again", code="invalid_lut_name"
        )
    local = path.parent / name
    return read_named_lut(store.resolve(local if local.is_dir() else name))


def _lut_of_search(search: SearchResult, store: LutStore) -> NamedLut | None:
    """Return the LUT that a search used; None if it is missing or was replaced."""
    if search.provenance is None:
        return None
    pin = search.provenance.luts[0]
    try:
        lut = read_named_lut(store.resolve(pin.name))
    except UsageError:
        return None
    return lut if lut.digest == pin.sha256 else None


def _supernet(path: Path) -> CheckpointInfo:
    # imports torch, which a report of a LUT does not need
    from search.supernet.train.checkpoint import read_info

    return read_info(path.parent)
