"""A plan: whole models to build and measure so that every block of a space gets its latency."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

FEWEST = 3
"""Models that make a LUT: a reference, one to fit and one to hold out."""

Role = Literal["reference", "base", "removal", "swap", "design", "heldout"]
Removals = Literal["all", "reference", "none"]


@dataclass(frozen=True)
class PlanModel:
    """One whole model: an architecture (`arch` is its JSON), or a base without one block (`arch` is "").

    A removal and a swap name their base, and the base's block that they show (`removed_key`).
    """

    model_id: str
    arch: str
    blocks: tuple[str, ...]
    role: Role
    base_id: str = ""
    removed_key: str = ""


@dataclass(frozen=True)
class Plan:
    """The models of one profile, the reference first."""

    space: str
    space_digest: str
    classes: int
    resolutions: tuple[int, ...]
    seed: int
    models: tuple[PlanModel, ...]

    @property
    def reference(self) -> PlanModel:
        """The model that every batch holds twice."""
        return self.models[0]

    @property
    def digest(self) -> str:
        """sha256 of everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def covered_keys(self) -> set[str]:
        """Block keys that some fitted model holds."""
        return {key for model in self.models if model.role != "heldout" for key in model.blocks}


def model_id(blocks: Sequence[str]) -> str:
    """Name of a model: equal blocks, equal name."""
    return hashlib.sha256(" ".join(blocks).encode()).hexdigest()[:12]
