"""The folder of one search: its result, what was measured of it, its front; of no other search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.json_file import write_json
from orchestrator.winner.choice import MeasuredBest
from search.algorithms import SearchResult, front
from search.algorithms.record import Evaluated, LutPin, SearchInputs

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
