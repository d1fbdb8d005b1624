"""What a report is made of: a LUT alone, or the folder of a run, every file of it validated."""

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
from search.algorithms.record import Evaluated, SearchResult
from search.spaces import Arch, load_arch
from search.supernet.train.logs import LogRow, read_log

if TYPE_CHECKING:
    from search.supernet.train.checkpoint import CheckpointInfo

Part = TypeVar("Part")

MAX_PATH_BYTES = 4096

MAX_CURVES = 12
"""More lines than this can't be told apart."""


@dataclass(frozen=True)
class NamedLut:
    """A LUT with the name it is known by and the digests of its files; `digest` is the sha256 of lut.json."""

    name: str
    lut: Lut
    files: Digests
    digest: str


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report may show; None and empty where it is not there, `absent` says so in words."""

    lut: NamedLut | None = None
    validation: Validation | None = None
    search: SearchResult | None = None
    winner: Arch | None = None
    measured: MeasuredBest | None = None
    supernet: CheckpointInfo | None = None
    absent: tuple[str, ...] = ()
    curves: Mapping[str, tuple[LogRow, ...]] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether any latency in the report comes from a simulated device."""
        return (self.lut is not None and self.lut.lut.meta.measured == "simulated") or (
            self.validation is not None and self.validation.measured == "simulated"
        )

    @property
    def chosen(self) -> Evaluated | None:
        """What the search said of the winner, which may be another than its own if measurements chose it."""
        if self.search is None:
            return None
        text = self.winner.to_json() if self.winner else self.search.winner.arch
        return next((row for row in self.search.evaluated if row.arch == text), self.search.winner)

    @property
    def winner_measured(self) -> MeasuredArch | None:
        """The winner's own measurement."""
        if self.winner is None or self.measured is None:
            return None
        return self.measured.of_arch(self.winner)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Parts that do not belong together, each in a sentence."""
        told = []
        if self.lut and self.search and self.lut.digest not in self.search.price.split("+"):
            told.append("The search was priced by another LUT than the one shown here.")
        if self.lut and self.validation and self.validation.lut != self.lut.name:
            told.append(f"The validation is of the LUT {self.validation.lut}, not of the one shown here.")
        if self.lut and self.measured and self.measured.variant != self.lut.lut.meta.variant:
            told.append(f"The networks found were measured as {self.measured.variant}, unlike the LUT.")
        return tuple(told)


def read_named_lut(ref: LutRef) -> NamedLut:
    """A LUT, its digests checked. Raises InvalidArtifactError."""
    files = read_files(ref.path)
    lut = decode(files)
    described = LutFile.model_validate_json(files[META_FILE])
    return NamedLut(str(ref), lut, described.sha256, hashlib.sha256(files[META_FILE]).hexdigest())


def read_run(folder: Path, store: LutStore) -> ReportInputs:
    """All that a run's folder holds, or the folder of a search alone (`bench search -o`) with the LUT it names.

    Raises:
        UsageError: no such folder, nothing to report in it, or its LUT is gone.
        InvalidArtifactError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; give the folder of a run, or --lut for a LUT alone")
    search_folder = folder if (folder / "result.json").exists() else folder / "search"
    places = {
        "lut.txt": "the LUT (lut.txt)",
        "validation.json": "a validation of the LUT on new networks (validation.json)",
        "supernet/checkpoint.json": "the supernet (supernet/)",
        "search/result.json": "a search (search/result.json)",
        "search/measured.json": "measurements of the networks found (search/measured.json)",
    }
    paths = {name: folder / name for name in places}
    paths |= {f"search/{name}": search_folder / name for name in ("result.json", "measured.json")}
    there = [name for name, path in paths.items() if path.exists()]
    winner_path = search_folder / "winner.json"
    curves = _curves(folder)
    if not there and not winner_path.exists():
        if curves:
            return ReportInputs(curves=curves)
        raise UsageError(
            f"{folder} holds nothing to report; expected lut.txt, validation.json, supernet/ or search/, what "
            "bench search or bench train writes, or folders of several trainings"
        )

    def read(name: str, load: Callable[[Path], Part]) -> Part | None:
        return load(paths[name]) if name in there else None

    search = read("search/result.json", SearchResult.load)
    winner = search.winner.architecture() if search else None
    lut = read("lut.txt", lambda path: _lut_of_run(path, store))
    if lut is None and search is not None and search_folder == folder:
        lut = _lut_of_search(search, store)
    return ReportInputs(
        lut=lut,
        validation=read("validation.json", Validation.load),
        search=search,
        winner=load_arch(str(winner_path)) if winner_path.exists() else winner,
        measured=read("search/measured.json", MeasuredBest.load),
        supernet=read("supernet/checkpoint.json", _supernet),
        curves=curves,
        absent=tuple(
            words for name, words in places.items() if name not in there and not (name == "lut.txt" and lut)
        ),
    )


def _curves(folder: Path) -> dict[str, tuple[LogRow, ...]]:
    """The trainings whose logs lie in a folder or in the folders in it, by folder; those without a row left out.

    Raises:
        InvalidArtifactError: one is damaged, or there are more than `MAX_CURVES`.
    """
    logs = [folder / "log.csv", *sorted(folder.glob("*/log.csv"))]
    there = [log for log in logs if log.is_file()]
    if len(there) > MAX_CURVES:
        raise InvalidArtifactError(f"{folder} holds {len(there)} trainings; a picture takes {MAX_CURVES}")
    read = {log.parent.name or str(log.parent): read_log(log) for log in there}
    return {name: rows for name, rows in read.items() if rows}


def _lut_of_run(path: Path, store: LutStore) -> NamedLut:
    try:
        with path.open("rb") as file:
            name = file.read(MAX_PATH_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read; write the LUT's path or name into it") from error
    if not 0 < len(name) <= MAX_PATH_BYTES or not name.isprintable():
        raise InvalidArtifactError(f"{path}: holds no path or name of a LUT; write it again")
    beside = path.parent / name
    return read_named_lut(store.resolve(beside if beside.is_dir() else name))


def _lut_of_search(search: SearchResult, store: LutStore) -> NamedLut | None:
    """The LUT that a search was priced by; None where it is not here any more, or another of its name."""
    if search.provenance is None:
        return None
    pin = search.provenance.luts[0]
    try:
        lut = read_named_lut(store.resolve(pin.name))
    except UsageError:
        return None
    return lut if lut.digest == pin.sha256 else None


def _supernet(path: Path) -> CheckpointInfo:
    # brings in torch, which a report of a LUT can do without
    from search.supernet.train.checkpoint import read_info

    return read_info(path.parent)
