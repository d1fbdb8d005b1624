"""Ranges of int8 activations: extremes over random inputs, the middle of what images give."""

from __future__ import annotations

import torch
from torch import Tensor
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

MIDDLE = 0.999
"""Share of an activation's values over the calibration images that its range holds, as many cut off below as above.

Extremes of many images are those of a few pixels, for which all others would be rounded coarsely. Percentiles as in
Wu et al. 2020, "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602), section 5."""


class MiddleObserver(HistogramObserver):  # type: ignore[misc]  # torchao is untyped
    """Range of the middle of the values; the histogram is torchao's, its search for the least error is not used."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of the range, 0-dimensional, to within 1/2048 of the extremes'."""
        below = torch.cumsum(self.histogram, 0) / self.histogram.sum()
        tail = (1 - MIDDLE) / 2
        first, last = int((below <= tail).sum()), int((below < 1 - tail).sum())
        width = (self.max_val - self.min_val) / self.bins
        return self.min_val + first * width, self.min_val + (last + 1) * width

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, (1,) each."""
        scale, zero_point = self._calculate_qparams(*self.ends())
        return scale, zero_point


class ExtremesObserver(MinMaxObserver):  # type: ignore[misc]
    """Range of all values."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value, 0-dimensional."""
        return self.min_val, self.max_val


def observer_for(images: Tensor | None) -> type[MiddleObserver] | type[ExtremesObserver]:
    """What takes the ranges over images, or over random inputs where there are none: their ranges decide no
    latency, and extremes cost no time."""
    return ExtremesObserver if images is None else MiddleObserver
