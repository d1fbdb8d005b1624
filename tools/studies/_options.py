"""What the command line says, for every study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        data: Source of images as `bench train` takes it; None where none is given.
        quick: Tiny networks and few images: shows that a study runs, and nothing else.
        seeds: Networks trained of each kind.
        epochs: Of each training.
        alone_epochs: Of networks that are trained alone, where that is another number.
        jobs: Networks trained side by side, a process each.
        device: What latency is measured on.
        budget_s: Longest time of a measurement.
        pictures: Folder of the pictures.
        truth: Published accuracies of NAS-Bench-Macro, a JSON file.
        lut: Name of the LUT that prices networks.
        supernet: Folder of a network that `bench train --arch` trained, for `int8`.
        on: Where supernets train and are judged: `auto`, `cpu`, `cuda` or `mps`.
    """

    data: str | None
    quick: bool
    seeds: int
    epochs: int
    jobs: int
    device: str
    budget_s: float
    pictures: Path
    truth: Path | None = None
    lut: str = ""
    on: str = "cpu"
    supernet: Path | None = None
    alone_epochs: int | None = None

    def save(self, drawn: Figure, name: str) -> None:
        """Write a picture as PNG."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        drawn.savefig(self.pictures / f"{name}.png", dpi=144, facecolor="white")
