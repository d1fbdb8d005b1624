"""What of a space a supernet was trained on: outside of it, inherited weights mean nothing."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from luts.format.errors import UsageError
from luts.format.schema import Value
from search.spaces.arch import Arch
from search.spaces.space import Space


class Scope(Value):
    """The subnets that a training draws.

    Attributes:
        stage_counts: How many stages they have, ascending.
        resolutions: Sides of their input in pixels, ascending.
        params: Their least and most parameters, with as many classes as the images have; None for any.
    """

    stage_counts: tuple[int, ...] = Field(min_length=1, max_length=64)
    resolutions: tuple[int, ...] = Field(min_length=1, max_length=64)
    params: tuple[int, int] | None = None

    def __str__(self) -> str:
        counts, sides = (" or ".join(map(str, values)) for values in (self.stage_counts, self.resolutions))
        sizes = "" if self.params is None else f", {self.params[0]:,} to {self.params[1]:,} parameters"
        return f"{counts} stages at {sides} px{sizes}"

    def excludes(self, arch: Arch) -> str:
        """What of an architecture, with the classes of the images, lies outside; "" where nothing does."""
        if len(arch.stages) not in self.stage_counts:
            return f"{len(arch.stages)} stages"
        if arch.resolution not in self.resolutions:
            return f"{arch.resolution} px"
        params = arch.params()
        inside = self.params is None or self.params[0] <= params <= self.params[1]
        return "" if inside else f"{params:,} parameters"

    def part(self, space: Space) -> Space:
        """The part of a space with these numbers of stages and resolutions; `UsageError` for none."""
        sides = tuple(side for side in space.resolutions if side in self.resolutions)
        if not sides:
            there = " or ".join(map(str, space.resolutions))
            raise UsageError(
                f"the supernet was trained on {self}, the LUT knows {there} px; "
                "profile at a trained resolution, or add --outside"
            )
        return replace(space.restricted(sides), stage_counts=self.stage_counts)
