"""What a run is computed with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class ComputeSettings:
    """Unlike the recipe, these may change when a run goes on.

    Attributes:
        device: Where the supernet lies.
        workers: Processes that prepare batches ahead of time; 0 for none.
        compiled: Whether torch.compile makes the supernet's modules (`search.supernet.model.compiled`).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    compiled: bool = False
