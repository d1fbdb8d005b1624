"""Types and units of numbers that several modules share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIB = 2.0**20
MMAC = 1e6
