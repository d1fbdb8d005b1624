"""What a report is made of: a LUT alone, or the folder of a run, every file of it validated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luts.errors import InvalidArtifactError, UsageError
from luts.files import META_FILE, decode
from luts.json_file import read_json
from luts.lut import Lut
from luts.schema import Digests, LutFile
from luts.store import LutRef, LutStore, read_files
from search.algorithms.record import Evaluated, SearchResult
from search.spaces import Arch, load_arch
from search.spaces.registry import MAX_ARCH_BYTES

if TYPE_CHECKING:
    from search.supernet.checkpoint import CheckpointInfo

MAX_COMPARISONS = 20_000
MAX_JSON_BYTES = 64 << 20
"""Room for as many comparisons as are allowed, with architectures of common size."""
MAX_PATH_BYTES = 4096

_Ms = Annotated[float, Field(gt=0, le=1e7)]
_LowMs = Annotated[float, Field(ge=0, le=1e7)]
_Text = Annotated[str, Field(max_length=4096)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Compared(_Value):
    """One architecture (canonical JSON), predicted and measured with intervals, in ms of the LUT's reference."""

    arch: Annotated[str, Field(max_length=MAX_ARCH_BYTES)]
    predicted_ms: _Ms
    predicted_low: _LowMs
    predicted_high: _Ms
    measured_ms: _Ms
    measured_low: _LowMs
    measured_high: _Ms

    @model_validator(mode="after")
    def _intervals_hold_their_values(self) -> Self:
        if not (
            self.predicted_low <= self.predicted_ms <= self.predicted_high
            and self.measured_low <= self.measured_ms <= self.measured_high
        ):
            raise ValueError("an interval does not hold its own value")
        return self


class MeasuredChoice(Compared):
    """An architecture that a search chose, measured again; `accuracy` is top-1, 0 to 1."""

    accuracy: Annotated[float, Field(ge=0, le=1)]


class MeasuredFile(_Value):
    """`search/measured.json`, as `orchestrator.winner.write_measured` leaves it.

    `winner` is the architecture chosen by the measurements; where `meets_budget` is false none of them was within
    the budget, and it is the search's own.
    """

    device: _Text
    variant: _Text
    winner: Annotated[str, Field(max_length=MAX_ARCH_BYTES)]
    meets_budget: bool
    models: Annotated[tuple[MeasuredChoice, ...], Field(min_length=1, max_length=MAX_COMPARISONS)]

    @model_validator(mode="after")
    def _winner_is_there(self) -> Self:
        if self.winner not in {model.arch for model in self.models}:
            raise ValueError("the winner was not measured")
        return self


class ValidationFile(_Value):
    """`validation.json`, as `orchestrator.measure.validate.write_validation` leaves it."""

    lut: _Text
    device: _Text
    measured: Literal["measured", "simulated"]
    comparisons: Annotated[tuple[Compared, ...], Field(min_length=1, max_length=MAX_COMPARISONS)]
    mape: Annotated[float, Field(ge=0)]
    max_error: Annotated[float, Field(ge=0)]
    within_2: Annotated[float, Field(ge=0, le=1)]
    within_5: Annotated[float, Field(ge=0, le=1)]
    within_10: Annotated[float, Field(ge=0, le=1)]
    kendall_tau: Annotated[float, Field(ge=-1, le=1)] | None
    coverage: Annotated[float, Field(ge=0, le=1)]
    noise_floor: Annotated[float, Field(ge=0)]
    reference_drift: Annotated[float, Field(gt=0)]


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
    validation: ValidationFile | None = None
    search: SearchResult | None = None
    winner: Arch | None = None
    measured: MeasuredFile | None = None
    supernet: CheckpointInfo | None = None
    absent: tuple[str, ...] = ()

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
    def winner_measured(self) -> MeasuredChoice | None:
        """The winner's own measurement."""
        if self.winner is None or self.measured is None:
            return None
        text = self.winner.to_json()
        return next((row for row in self.measured.models if row.arch == text), None)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Parts that do not belong together, each in a sentence."""
        found = []
        if self.lut and self.search and self.lut.digest not in self.search.price.split("+"):
            found.append("The search was priced by another LUT than the one shown here.")
        if self.lut and self.validation and self.validation.lut != self.lut.name:
            found.append(f"The validation is of the LUT {self.validation.lut}, not of the one shown here.")
        if self.lut and self.measured and self.measured.variant != self.lut.lut.meta.variant:
            found.append(f"The networks found were measured as {self.measured.variant}, unlike the LUT.")
        return tuple(found)


def read_named_lut(ref: LutRef) -> NamedLut:
    """A LUT, its digests checked. Raises InvalidArtifactError."""
    files = read_files(ref.path)
    lut = decode(files)
    described = LutFile.model_validate_json(files[META_FILE])
    return NamedLut(str(ref), lut, described.sha256, hashlib.sha256(files[META_FILE]).hexdigest())


def read_run(folder: Path, store: LutStore) -> ReportInputs:
    """All that a run's folder holds.

    Raises:
        UsageError: no such folder, nothing to report in it, or its LUT is gone.
        InvalidArtifactError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; give the folder of a run, or --lut for a LUT alone")
    places = {
        "lut.txt": "the LUT (lut.txt)",
        "validation.json": "a validation of the LUT on new networks (validation.json)",
        "supernet/checkpoint.json": "the supernet (supernet/)",
        "search/result.json": "a search (search/result.json)",
        "search/measured.json": "measurements of the networks found (search/measured.json)",
    }
    found = {name: (folder / name).exists() for name in places}
    winner_path = folder / "search" / "winner.json"
    if not any(found.values()) and not winner_path.exists():
        raise UsageError(
            f"{folder} holds nothing to report; expected lut.txt, validation.json, supernet/ or search/"
        )
    search = SearchResult.load(folder / "search/result.json") if found["search/result.json"] else None
    winner = search.winner.architecture() if search else None
    return ReportInputs(
        lut=_lut_of_run(folder, store) if found["lut.txt"] else None,
        validation=_validation(folder / "validation.json") if found["validation.json"] else None,
        search=search,
        winner=load_arch(str(winner_path)) if winner_path.exists() else winner,
        measured=_measured(folder / "search/measured.json") if found["search/measured.json"] else None,
        supernet=_supernet(folder / "supernet") if found["supernet/checkpoint.json"] else None,
        absent=tuple(words for name, words in places.items() if not found[name]),
    )


def _lut_of_run(folder: Path, store: LutStore) -> NamedLut:
    path = folder / "lut.txt"
    try:
        with path.open("rb") as file:
            name = file.read(MAX_PATH_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read; write the LUT's path or name into it") from error
    if not 0 < len(name) <= MAX_PATH_BYTES or not name.isprintable():
        raise InvalidArtifactError(f"{path}: holds no path or name of a LUT; write it again")
    beside = folder / name
    return read_named_lut(store.resolve(beside if beside.is_dir() else name))


def _validation(path: Path) -> ValidationFile:
    return read_json(path, ValidationFile, MAX_JSON_BYTES, "run bench validate again")


def _measured(path: Path) -> MeasuredFile:
    return read_json(path, MeasuredFile, MAX_JSON_BYTES, "measure the networks again")


def _supernet(folder: Path) -> CheckpointInfo:
    from search.supernet.checkpoint import (
        read_info,
    )  # brings in torch, which a report of a LUT can do without

    return read_info(folder)
