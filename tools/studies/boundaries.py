"""Does a price of the data that blocks hand over, one per kind of boundary, belong in the latency model?

AutoViT's notes write L = sum l_i o_i + sum t_j d_j. The kind of a boundary is that of the blocks around it.
The second term belongs in the model if measurements identify it, that is if the bytes of boundaries are no linear
combination of the counts of blocks, and if networks that no fit has seen are predicted better with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import wilcoxon
from sklearn.linear_model import RidgeCV

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.schema import MIB, Floats, MeasuredModel
from luts.format.store import load_lut
from search.blocks import parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT
from tools.studies.shared import Options
from tools.tables import Interval, Tables

STRENGTHS = np.geomspace(1e-4, 1e4, 25)
"""Regularisation strengths of the ridge regression, for columns of unit size; leave-one-out chooses."""
TOLERANCE = 1e-6
"""Smallest singular value of full rank, relative to the largest."""
FEWEST_HELD_OUT = 6

Boundary = tuple[str, str]


@dataclass(frozen=True)
class BoundaryTest:
    """Result for one LUT.

    Attributes:
        boundaries: Kinds of boundaries in the fitted networks.
        identified: Kinds whose bytes are no linear combination of the counts of blocks.
        rank_gained: Increase of the rank of the counts when all bytes are added as columns.
        without: Absolute relative errors of the held-out networks (n,), as the LUT predicts them.
        with_prices: The same errors with prices of boundaries added.
    """

    boundaries: tuple[Boundary, ...]
    identified: tuple[Boundary, ...]
    rank_gained: int
    without: Floats
    with_prices: Floats

    @property
    def p(self) -> float:
        """Wilcoxon's signed-rank test of the two errors, network by network."""
        if (self.with_prices == self.without).all():
            return 1.0
        return float(wilcoxon(self.with_prices, self.without).pvalue)


def main(options: Options) -> Tables:
    """Test the LUTs of `--lut`; errors in percent, their difference with a 95 % interval over held-out networks."""
    rows = []
    for name in options.lut.split(","):
        result = boundary_test(load_lut(name))
        difference = 100 * (result.with_prices - result.without)
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        rows.append(
            {
                "LUT": name,
                "held out": len(result.without),
                "kinds of boundaries": len(result.boundaries),
                "rank gained": result.rank_gained,
                "MAPE without": 100 * result.without.mean(),
                "with": 100 * result.with_prices.mean(),
                "difference": Interval(difference.mean(), difference.mean() - half, difference.mean() + half),
                "p": result.p,
            }
        )
    return {"Prices of boundaries": rows}


def handed_mib(blocks: Sequence[str]) -> dict[Boundary, float]:
    """Return the MiB that each kind of boundary hands over in a network of these blocks."""
    handed: dict[Boundary, float] = {}
    for before, after in pairwise(parse_keys(blocks)):
        kinds = (before.kind, after.kind)
        handed[kinds] = handed.get(kinds, 0.0) + before.out_elements * BYTES_PER_ELEMENT / MIB
    return handed


def boundary_test(lut: Lut) -> BoundaryTest:
    """Test one LUT on its own measurements.

    The residuals of the fitted networks are regressed on the bytes of each kind of boundary, the most that the term
    could still explain; the same prices then correct the predictions of the held-out networks.

    Raises:
        UsageError: the LUT has too few held-out networks.
    """
    fitted = [model for model in lut.models if model.fitted]
    heldout = [model for model in lut.models if model.split == "heldout"]
    if len(heldout) < FEWEST_HELD_OUT:
        raise UsageError(
            f"{len(heldout)} held-out networks are too few for a test; use a LUT with {FEWEST_HELD_OUT} or more",
            code="too_few_held_out",
        )
    boundaries = tuple(sorted({kinds for model in fitted for kinds in handed_mib(model.blocks)}))
    keys = sorted({key for model in fitted for key in model.blocks})
    counts = np.array([[1.0, *(Counter(model.blocks)[key] for key in keys)] for model in fitted])
    fitted_mib, heldout_mib = _mib(fitted, boundaries), _mib(heldout, boundaries)
    columns = fitted_mib / fitted_mib.max(axis=0)
    rank = _rank(counts)
    alone = [_rank(np.column_stack([counts, column])) > rank for column in columns.T]
    residuals, ms = _residuals(lut, fitted)
    size = np.abs(fitted_mib / ms[:, None]).mean(axis=0)
    ridge = RidgeCV(alphas=STRENGTHS, fit_intercept=False).fit(fitted_mib / ms[:, None] / size, residuals)
    left, heldout_ms = _residuals(lut, heldout)
    return BoundaryTest(
        boundaries=boundaries,
        identified=tuple(kinds for kinds, found in zip(boundaries, alone, strict=True) if found),
        rank_gained=_rank(np.hstack([counts, columns])) - rank,
        without=np.abs(left),
        with_prices=np.abs(left - ridge.predict(heldout_mib / heldout_ms[:, None] / size)),
    )


def _mib(models: Sequence[MeasuredModel], boundaries: Sequence[Boundary]) -> Floats:
    handed = [handed_mib(model.blocks) for model in models]
    return np.array([[row.get(kinds, 0.0) for kinds in boundaries] for row in handed])


def _residuals(lut: Lut, models: Sequence[MeasuredModel]) -> tuple[Floats, Floats]:
    """Return (measured - predicted) / measured (n,) and measured ms (n,)."""
    ms = np.array([model.ms for model in models])
    predicted = [lut.latency_model.predict(model.blocks, model.boundary_bytes).ms for model in models]
    return 1 - np.array(predicted) / ms, ms


def _rank(matrix: Floats) -> int:
    sizes = np.linalg.svd(matrix, compute_uv=False)
    return int((sizes > TOLERANCE * sizes[0]).sum())
