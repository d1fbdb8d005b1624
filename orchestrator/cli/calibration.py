"""Options of the images that decide int8's ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.tasks.quantization import DEFAULT_IMAGES, Calibration


@dataclass(frozen=True)
class CalibrationImages:
    """Which images, by the seed of the command."""

    calibration: Annotated[
        str | None,
        typer.Option(
            help="Images that decide the ranges of int8, as of `bench train --data`; random inputs."
        ),
    ] = None
    calibration_images: Annotated[
        int | None, typer.Option(min=1, help=f"How many of its training images; {DEFAULT_IMAGES}.")
    ] = None

    def parse(self, seed: int = 0) -> Calibration | None:
        """None where no images are named. Raises UsageError where something is said of them all the same."""
        if self.calibration is None:
            if self.calibration_images is not None:
                raise UsageError("--calibration-images chooses images; add --calibration DATA")
            return None
        return Calibration(self.calibration, self.calibration_images or DEFAULT_IMAGES, seed)


@dataclass(frozen=True)
class CalibrationOptions(CalibrationImages):
    """Which images, with a seed of their own."""

    seed: Annotated[int | None, typer.Option(min=0, help="Of the choice of these images; 0.")] = None

    def parse(self, seed: int = 0) -> Calibration | None:
        """As `CalibrationImages`."""
        if self.calibration is None and self.seed is not None:
            raise UsageError("--seed chooses images; add --calibration DATA")
        return super().parse(self.seed or seed)
