"""Does a price of the data that blocks hand over, one per kind of boundary, belong in the latency model?

AutoViT's notes write L = sum l_i o_i + sum t_j d_j. The kind of a boundary is that of the blocks around it.
The second term belongs in the model if measurements identify it, that is if the bytes of boundaries are no linear
combination of the counts of blocks, and if networks that no fit has seen are predicted better with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from sklearn.linear_model import RidgeCV

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


def main(options: Options) -> Tables:
    """Test the LUTs of `--lut`; errors in percent, their difference with a 95 % interval over held-out networks."""
    return {
        "Prices of boundaries": [
            {"LUT": name} | boundary_test(load_lut(name)) for name in options.lut.split(",")
        ]
    }


def boundary_test(lut: Lut) -> dict[str, object]:
    """Return the row of one LUT, tested on its own measurements.

    The residuals of the fitted networks are regressed on the bytes of each kind of boundary, the most that the term
    could still explain; the same prices then correct the predictions of the held-out networks. `rank gained` is
    the increase of the rank of the counts of blocks when all bytes are added as columns; `p` is of Wilcoxon's
    signed-rank test of the two errors, network by network.
    """
    fitted = [model for model in lut.models if model.fitted]
    heldout = [model for model in lut.models if model.split == "heldout"]
    counts = pd.DataFrame([Counter(model.blocks) for model in fitted]).fillna(0).assign(base=1.0)
    handed = pd.DataFrame([handed_mib(model.blocks) for model in fitted]).fillna(0.0)
    unseen = pd.DataFrame([handed_mib(model.blocks) for model in heldout], columns=handed.columns).fillna(0.0)
    residuals, ms = _residuals(lut, fitted)
    size = handed.div(ms, axis=0).mean()
    ridge = RidgeCV(alphas=STRENGTHS, fit_intercept=False).fit(handed.div(ms, axis=0) / size, residuals)
    left, heldout_ms = _residuals(lut, heldout)
    without = 100 * np.abs(left)
    priced = 100 * np.abs(left - ridge.predict(unseen.div(heldout_ms, axis=0) / size))
    difference = priced - without
    mean, half = difference.mean(), 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    return {
        "held out": len(heldout),
        "kinds of boundaries": handed.shape[1],
        "rank gained": _rank(np.hstack([counts, handed / handed.max()])) - _rank(counts.to_numpy()),
        "MAPE without": without.mean(),
        "with": priced.mean(),
        "difference": Interval(mean, mean - half, mean + half),
        "p": float(wilcoxon(priced, without).pvalue) if difference.any() else 1.0,
    }


def handed_mib(blocks: Sequence[str]) -> dict[str, float]:
    """Return the MiB that each kind of boundary hands over in a network of these blocks."""
    handed: dict[str, float] = {}
    for before, after in pairwise(parse_keys(blocks)):
        kinds = f"{before.kind} > {after.kind}"
        handed[kinds] = handed.get(kinds, 0.0) + before.out_elements * BYTES_PER_ELEMENT / MIB
    return handed


def _residuals(lut: Lut, models: Sequence[MeasuredModel]) -> tuple[Floats, Floats]:
    """Return (measured - predicted) / measured (n,) and measured ms (n,)."""
    ms = np.array([model.ms for model in models])
    predicted = [lut.latency_model.predict(model.blocks, model.boundary_bytes).ms for model in models]
    return 1 - np.array(predicted) / ms, ms


def _rank(matrix: Floats) -> int:
    return int(np.linalg.matrix_rank(matrix, rtol=TOLERANCE))
