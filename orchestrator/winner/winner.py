"""A search's winner: chosen by measurement, exported and written to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from luts.format.errors import UsageError
from luts.format.files import read_json, write_json
from luts.format.schema import Fraction, Value
from orchestrator.measure.validate import MAX_COMPARISONS, MAX_JSON_BYTES, LatencyComparison
from search.algorithms import SearchResult, front
from search.algorithms.record import Evaluated, LutPin, SearchInputs
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES


class MeasuredArch(LatencyComparison):
    """One architecture of a search: predicted, measured, and judged by its inherited accuracy."""

    accuracy: Fraction


class MeasuredBest(Value):
    """A search's best as they were measured, the best by the search first.

    Attributes:
        device: What was measured, as it was named.
        variant: How the models ran.
        winner: The first architecture whose measured interval is within the budget.
        meets_budget: Where it is false, none was within the budget, and `winner` is the search's own.
    """

    device: str = Field(max_length=4096)
    variant: str = Field(max_length=4096)
    winner: str = Field(max_length=MAX_ARCH_BYTES)
    meets_budget: bool
    models: tuple[MeasuredArch, ...] = Field(min_length=1, max_length=MAX_COMPARISONS)

    @model_validator(mode="after")
    def _winner_is_there(self) -> Self:
        if self.winner not in {model.arch for model in self.models}:
            raise ValueError("the winner was not measured")
        return self

    @classmethod
    def choose(
        cls,
        device: str,
        variant: str,
        best: Sequence[Evaluated],
        compared: Sequence[LatencyComparison],
        budget_ms: float,
    ) -> MeasuredBest:
        """Choose by measurements; `best` in the order of the search, `compared` in the same."""
        models = tuple(
            MeasuredArch(**model.model_dump(), accuracy=row.accuracy)
            for model, row in zip(compared, best, strict=True)
        )
        within = first_within(models, budget_ms)
        return cls(
            device=device,
            variant=variant,
            winner=(within or models[0]).arch,
            meets_budget=within is not None,
            models=models,
        )

    @property
    def rank(self) -> int:
        """The winner's place among the models, from 0."""
        return [model.arch for model in self.models].index(self.winner)

    @property
    def chosen(self) -> MeasuredArch:
        """The winner's measurement."""
        return self.models[self.rank]

    def of_arch(self, arch: Arch) -> MeasuredArch | None:
        """The measurement of an architecture; None if it was not measured."""
        text = arch.to_json()
        return next((model for model in self.models if model.arch == text), None)

    def is_of(self, result: SearchResult) -> bool:
        """Whether a search found all that was measured, and its budget chooses this winner."""
        found = {(row.arch, row.accuracy) for row in result.evaluated}
        within = first_within(self.models, result.budget.latency_ms)
        chosen = (within or self.models[0]).arch, within is not None
        return chosen == (self.winner, self.meets_budget) and all(
            (model.arch, model.accuracy) in found for model in self.models
        )

    def save(self, path: Path) -> None:
        """Write as JSON; `StorageError` where that fails."""
        write_json(path, self.model_dump())

    @classmethod
    def load(cls, path: Path) -> MeasuredBest:
        """Read what `save` wrote; `InvalidArtifactError` where it is damaged."""
        return read_json(path, cls, MAX_JSON_BYTES, "measure the networks again")


def best_of(result: SearchResult, count: int) -> list[Evaluated]:
    """The `count` best architectures by what the search ranked them by; its winner first."""
    loss = result.settings.loss
    ranked = sorted(
        result.evaluated,
        key=lambda e: (loss(e.accuracy, e.latency_ms), e.latency_ms, e.params, e.arch),
    )
    return ranked[:count]


def first_within(models: Sequence[MeasuredArch], budget_ms: float) -> MeasuredArch | None:
    """The first, the best by the search, whose measured interval is within the budget; None if none is."""
    return next((model for model in models if model.measured_high <= budget_ms), None)


def winner_of(result: SearchResult, measured: MeasuredBest | None) -> Evaluated:
    """What the search said of the architecture that measurements chose; the search's own winner without any."""
    if measured is None:
        return result.winner
    return next(row for row in result.evaluated if row.arch == measured.winner)


REMEDY = "use another folder, or remove it"

RESULT_FILE = "result.json"

LARGEST_FILE = "largest.json"
"""Of a search without a supernet."""


@dataclass(frozen=True)
class ResultFolder:
    """Where a search is written: `result.json`, `front/` with an architecture a file, and `measured.json` where its
    best were measured."""

    path: Path

    def check(self, inputs: SearchInputs, luts: Sequence[LutPin]) -> None:
        """Before a search with these inputs: nothing of another may stand here.

        Raises:
            UsageError: the folder holds another search; says what differs.
            InvalidArtifactError: what it holds is damaged.
        """
        earlier = None
        if (self.path / LARGEST_FILE).exists():
            raise UsageError(f"{self.path} holds a search without a supernet; {REMEDY}")
        if self._result.exists():
            earlier = SearchResult.load(self._result, REMEDY)
            if differing := earlier.difference(inputs):
                raise UsageError(
                    f"{self.path} holds a search with another {differing}{_of_luts(differing, earlier, luts)}; "
                    "repeat its options or use another folder"
                )
        self._check_measured(earlier)

    def save(self, result: SearchResult) -> dict[Path, Evaluated]:
        """Write the result, and each member of its front as a file for `--arch`; these files, best first.

        Raises:
            UsageError: measurements stand here that are of another search.
            StorageError: nothing can be written.
        """
        self._check_measured(result)
        result.save(self._result)
        rows = front(result.evaluated, result.settings.objectives)
        files = {self.path / "front" / f"{rank:03}.json": row for rank, row in enumerate(rows, start=1)}
        for file, row in files.items():
            write_json(file, row.architecture().to_document())
        for other in set((self.path / "front").glob("*.json")) - set(files):
            other.unlink()
        return files

    def save_measured(self, measured: MeasuredBest) -> Path:
        """Write measurements of the result's best; their file."""
        measured.save(self._measured)
        return self._measured

    def measured(self) -> MeasuredBest | None:
        """What was measured of the result's best."""
        return MeasuredBest.load(self._measured) if self._measured.exists() else None

    @property
    def _result(self) -> Path:
        return self.path / RESULT_FILE

    @property
    def _measured(self) -> Path:
        return self.path / "measured.json"

    def _check_measured(self, result: SearchResult | None) -> None:
        measured = self.measured()
        if measured is not None and (result is None or not measured.is_of(result)):
            raise UsageError(f"{self._measured} is of another search; {REMEDY}")


def _of_luts(differing: str, earlier: SearchResult, now: Sequence[LutPin]) -> str:
    """`: A, now B`, where it is the LUT that differs and the earlier one's name is known."""
    if differing != "LUT" or earlier.provenance is None:
        return ""
    before, after = (" and ".join(pin.name for pin in pins) for pins in (earlier.provenance.luts, now))
    if before != after:
        return f": {before}, now {after}"
    same = [pin.sha256 for pin in earlier.provenance.luts] == [pin.sha256 for pin in now]
    return (
        f": {before} is read for another device, or by other devices"
        if same
        else f": {before} has other files now"
    )
