"""What token mixers have in common: a map in, a map of the same shape out, with neither norm nor residual.

Each takes and gives a map as hybrid networks hand it on, so its own change of layout is part of its cost.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from luts.format.errors import UsageError
from search.blocks.shapes import ChannelKeeping
from search.blocks.spec import param


@dataclasses.dataclass(frozen=True)
class TokenMixer(ChannelKeeping):
    """A mixer of the N = resolution^2 pixels of a map of d channels."""

    elastic: ClassVar[bool] = False

    @property
    def removable(self) -> bool:
        return True

    @property
    def tokens(self) -> int:
        """Pixels N of the map."""
        return self.resolution**2


@dataclasses.dataclass(frozen=True)
class HeadedMixer(TokenMixer):
    """A mixer whose channels are those of its heads, side by side."""

    heads: int = param("heads")

    def __post_init__(self) -> None:
        """`UsageError` where the heads have no equal channels."""
        if self.channels % self.heads:
            raise UsageError(
                f"{self.key}: {self.channels} channels do not make {self.heads} equal heads; change one"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.channels // self.heads

    def _whole_cells(self, side: int, cells: str) -> None:
        """`UsageError` where squares of so many pixels do not tile the map."""
        if self.resolution % side:
            raise UsageError(
                f"{self.key}: {cells} of {side} px do not tile {self.resolution} px; take a multiple of {side}"
            )
