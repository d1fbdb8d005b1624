"""What the coarse stage alone gives, as one JSON file: the largest networks within a budget, none trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from luts.format.json_file import read_json, write_json
from luts.format.values import Value
from search.algorithms.record.result import Coarse, LutPin
from search.algorithms.record.settings import Budget
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES, arch_from_json

MAX_BYTES = 64 << 20
"""Room for the largest K that is allowed."""

MAX_COUNT = 10_000

CRITERION: Literal["conv+linear MACs, then parameters"] = "conv+linear MACs, then parameters"


class Sized(Value):
    """An architecture (canonical JSON) with its size and predicted latency; fields as those of `Evaluated`."""

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    macs: int
    params: int
    latency_ms: float
    latency_high_ms: float
    further_latency_ms: tuple[float, ...] = ()
    further_latency_high_ms: tuple[float, ...] = ()
    memory_bytes: int

    def architecture(self) -> Arch:
        """The architecture itself; `UsageError` where its space has no such choice any more."""
        return arch_from_json(self.arch)


class CoarseInputs(Value):
    """All that decides the result, but the code.

    Attributes:
        count: K, how many networks are kept.
        draws: As of `SearchSettings`.
    """

    format: Literal[1] = 1
    space: str
    space_digest: str
    price: str
    budget: Budget
    count: int = Field(ge=1, le=MAX_COUNT)
    draws: int = Field(ge=1, le=1_000_000)
    seed: int


class CoarseResult(CoarseInputs):
    """The first K of the candidates within the budget.

    Attributes:
        largest_by: What they are ranked by, which says nothing of accuracy.
        whole: Whether the candidates were all within the budget, and not draws from them.
        networks: Largest first.
        luts: In the order of the budget's latencies.
    """

    largest_by: Literal["conv+linear MACs, then parameters"] = CRITERION
    coarse: Coarse
    whole: bool
    networks: Annotated[tuple[Sized, ...], Field(min_length=1, max_length=MAX_COUNT)]
    luts: tuple[LutPin, ...] = ()

    def save(self, path: Path) -> None:
        """Write as JSON; `StorageError` where that fails."""
        write_json(path, self.model_dump())

    @classmethod
    def load(cls, path: Path, remedy: str) -> CoarseResult:
        """Read what `save` wrote; `InvalidArtifactError`, which ends with `remedy`, where it is damaged."""
        return read_json(path, cls, MAX_BYTES, remedy)
