"""A search's result folder, and its winner: the search's own best network, or the one that measurements choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_bytes, read_json, write_json
from luts.format.schema import Fraction, Value
from orchestrator.measure.validate import MAX_COMPARISONS, MAX_JSON_BYTES, LatencyComparison
from search.algorithms import SearchResult, pareto_front
from search.algorithms.record import Evaluated, LutPin, SearchInputs
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES


class MeasuredArch(LatencyComparison):
    """One architecture of a search: predicted and measured latency, and the objective's value."""

    accuracy: Fraction


class MeasuredBest(Value):
    """A search's best networks as they were measured, the search's own winner first.

    Attributes:
        device: Name of the device.
        variant: How the models ran.
        winner: The first architecture whose measured interval is within the latency limit.
        meets_budget: False if none was within the limit; then `winner` is the search's own.
        models: The networks.
    """

    device: str = Field(max_length=4096)
    variant: str = Field(max_length=4096)
    winner: str = Field(max_length=MAX_ARCH_BYTES)
    meets_budget: bool
    models: tuple[MeasuredArch, ...] = Field(min_length=1, max_length=MAX_COMPARISONS)

    @model_validator(mode="after")
    def _winner_was_measured(self) -> Self:
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
        limit_ms: float,
    ) -> MeasuredBest:
        """Choose the winner by measurements; `best` and `compared` are in the order of the search."""
        models = tuple(
            MeasuredArch(**model.model_dump(), accuracy=row.accuracy)
            for model, row in zip(compared, best, strict=True)
        )
        winner, meets = _choice(models, limit_ms)
        return cls(device=device, variant=variant, winner=winner, meets_budget=meets, models=models)

    @property
    def rank(self) -> int:
        """Index of the winner among the models."""
        return [model.arch for model in self.models].index(self.winner)

    @property
    def chosen(self) -> MeasuredArch:
        """The winner's measurement."""
        return self.models[self.rank]

    def of_arch(self, arch: Arch) -> MeasuredArch | None:
        """Return the measurement of an architecture; None if it was not measured."""
        text = arch.to_json()
        return next((model for model in self.models if model.arch == text), None)

    def within(self, limit_ms: float) -> set[str]:
        """Return the architectures whose measured interval is within a latency limit."""
        return {model.arch for model in self.models if model.measured_high <= limit_ms}

    def is_of(self, result: SearchResult) -> bool:
        """Return whether a search evaluated all of these networks and its latency limit chooses this winner."""
        evaluated = {(row.arch, row.accuracy) for row in result.rows}
        choice = _choice(self.models, result.constraints.latency_ms)
        return choice == (self.winner, self.meets_budget) and all(
            (model.arch, model.accuracy) in evaluated for model in self.models
        )

    def verdict(self, limit_ms: float) -> str:
        """Return in one line what the measurements say of the search's winner."""
        within = f"within {limit_ms:.3f} ms"
        if not self.meets_budget:
            return (
                f"no measured network is {within} at the upper end of its interval, so the winner is the search's "
                "own; measure more networks with --top, or search with a smaller --latency"
            )
        if self.rank == 0:
            return f"the search's winner is {within} as measured"
        return f"the winner changed: rank {self.rank + 1} is the best network {within} as measured"

    def save(self, path: Path) -> None:
        """Write as JSON; raise StorageError if that fails."""
        write_json(path, self.model_dump())

    @classmethod
    def load(cls, path: Path) -> MeasuredBest:
        """Read a saved file; raise InvalidArtifactError if it is damaged."""
        return read_json(path, cls, MAX_JSON_BYTES, "measure the networks again")


def _choice(models: Sequence[MeasuredArch], limit_ms: float) -> tuple[str, bool]:
    """Return the winner and whether its measured interval is within the limit."""
    within = next((model for model in models if model.measured_high <= limit_ms), None)
    return (within or models[0]).arch, within is not None


REMEDY = "use another folder, or remove it"

RESULT_FILE = "result.json"

LARGEST_FILE = "largest.json"
"""Written by the strategy `largest`; folders of older versions have it without a result."""

LARGEST_BY = "conv+linear MACs, then parameters"


def largest_document(result: SearchResult) -> dict[str, Any]:
    """Return the result of the strategy `largest` as `largest.json` has it."""
    settings = result.settings
    return {
        **result.model_dump(include={"format", "space", "space_digest", "price", "constraints"}),
        "count": settings.skeletons,
        "draws": settings.draws,
        "seed": settings.seed,
        "largest_by": LARGEST_BY,
        "coarse": result.coarse.model_dump(exclude={"whole"}),
        "whole": bool(result.coarse.whole),
        "networks": [
            row.model_dump(exclude={"accuracy", "generation"}) for row in result.best(len(result.evaluated))
        ],
        "luts": [pin.model_dump() for pin in result.provenance.luts] if result.provenance else [],
    }


@dataclass(frozen=True)
class ResultFolder:
    """Folder of one search.

    It has `result.json`, an architecture per file in `front/` (or `networks/` for the strategy `largest`),
    `measured.json` if its best networks were measured, and `finals.json` if some were trained.
    """

    path: Path

    def check(self, inputs: SearchInputs, luts: Sequence[LutPin]) -> None:
        """Check before a search with these inputs that the folder has no other search.

        Raises:
            UsageError: the folder has another search; the message says what differs.
            InvalidArtifactError: its files are damaged.
        """
        earlier = None
        if self._result.exists():
            earlier = SearchResult.load(self._result, REMEDY)
            if difference := earlier.difference(inputs):
                raise _other_search(self.path, f"{difference}{_luts_text(difference, earlier, luts)}")
        elif (self.path / LARGEST_FILE).exists():
            self._check_largest(inputs)
        self._check_measured(earlier)

    def save(self, result: SearchResult) -> dict[Path, Evaluated]:
        """Write the result, and its front (or all networks of `largest`), and return the architecture files.

        Raises:
            UsageError: the folder has measurements of another search.
            StorageError: it cannot be written.
        """
        self._check_measured(result)
        result.save(self._result)
        folder, rows = "front", pareto_front(result.evaluated, result.settings.objectives)
        if result.settings.strategy == "largest":
            write_json(self.path / LARGEST_FILE, largest_document(result))
            folder, rows = "networks", tuple(result.best(len(result.evaluated)))
        files = {self.path / folder / f"{rank:03}.json": row for rank, row in enumerate(rows, start=1)}
        for file, row in files.items():
            write_json(file, row.architecture().to_document())
        for other in set((self.path / folder).glob("*.json")) - set(files):
            other.unlink()
        return files

    def save_measured(self, measured: MeasuredBest) -> Path:
        """Write measurements of the result's best networks, and return their file."""
        measured.save(self._measured)
        return self._measured

    def measured(self) -> MeasuredBest | None:
        """Return the measurements of the result's best networks, if there are any."""
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
            raise UsageError(f"{self._measured} is of another search; {REMEDY}", code="other_search")

    def _check_largest(self, inputs: SearchInputs) -> None:
        """Check a folder of an older version, which has the largest networks without a result."""
        path = self.path / LARGEST_FILE
        try:
            earlier: Mapping[str, Any] = json.loads(read_bytes(path, MAX_JSON_BYTES, REMEDY))
            differences = [
                name
                for name, now in (
                    ("space_digest", inputs.space_digest),
                    ("price", inputs.price),
                    ("budget", inputs.constraints.model_dump(mode="json")),
                    ("count", inputs.settings.skeletons),
                    ("draws", inputs.settings.draws),
                    ("seed", inputs.settings.seed),
                )
                if earlier[name] != now
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArtifactError(f"{path} is damaged; {REMEDY}", code="damaged_file") from error
        if inputs.settings.strategy != "largest":
            raise _other_search(self.path, "strategy")
        if differences:
            raise _other_search(self.path, differences[0])


def _other_search(folder: Path, difference: str) -> UsageError:
    return UsageError(
        f"{folder} has a search with another {difference}; repeat its options or use another folder",
        code="other_search",
    )


def _luts_text(difference: str, earlier: SearchResult, now: Sequence[LutPin]) -> str:
    """Return `: A, now B` if the difference is the LUT and the earlier LUT's name is known."""
    if difference != "LUT" or earlier.provenance is None:
        return ""
    before, after = (" and ".join(pin.name for pin in pins) for pins in (earlier.provenance.luts, now))
    if before != after:
        return f": {before}, now {after}"
    same = [pin.sha256 for pin in earlier.provenance.luts] == [pin.sha256 for pin in now]
    return (
        f": {before} was used as a proxy for a different device"
        if same
        else f": {before} has other files now"
    )
