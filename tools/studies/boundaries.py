"""Whether a price of data handed over, one t_j a kind of boundary, belongs in the latency model.

AutoViT's notes write L = sum l_i o_i + sum t_j d_j. A boundary's kind is that of the block before it and of the one
after it. Such a term is kept where measurements decide it: some t_j changes what no entry can change (`gained`),
and networks that no fit has seen are predicted better with it.
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
from search.blocks.registry import parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT
from tools.studies._options import Options

STRENGTHS = np.geomspace(1e-4, 1e4, 25)
"""Of the ridge, relative to columns of unit size; leaving one network out chooses."""
TOLERANCE = 1e-6
"""Relative to the largest singular value; counts are small integers and bytes are scaled to them."""

Boundary = tuple[str, str]


@dataclass(frozen=True)
class Verdict:
    """What one LUT's measurements say of prices a kind of boundary.

    Attributes:
        boundaries: Kinds that occur in fitted networks.
        identified: Those whose bytes are no combination of the networks' counts of blocks.
        gained: By how much the rank of the counts grows with all their bytes beside them.
        without: |relative error| of the held-out networks (n,), as the LUT predicts them.
        given: The same with prices of boundaries on top.
    """

    boundaries: tuple[Boundary, ...]
    identified: tuple[Boundary, ...]
    gained: int
    without: Floats
    given: Floats

    @property
    def p(self) -> float:
        """Wilcoxon's signed-rank test of the two errors, network by network."""
        return float(wilcoxon(self.given, self.without).pvalue) if (self.given != self.without).any() else 1.0

    @property
    def better(self) -> bool:
        """Identified, and better on networks that were not fitted."""
        return self.gained > 0 and self.p < 0.05 and float((self.given - self.without).mean()) < 0


def handed_mib(blocks: Sequence[str]) -> dict[Boundary, float]:
    """MiB that each kind of boundary hands over in a network of these blocks."""
    specs = parse_keys(blocks)
    handed: dict[Boundary, float] = {}
    for before, after in pairwise(specs):
        kinds = (before.kind, after.kind)
        handed[kinds] = handed.get(kinds, 0.0) + before.out_elements * BYTES_PER_ELEMENT / MIB
    return handed


def verdict_of(lut: Lut) -> Verdict:
    """The test on one LUT's own measurements.

    What its fit leaves of the fitted networks is regressed on the bytes of each kind of boundary, which is the most
    that the term could still explain; the same prices then correct the held-out networks' predictions.

    Raises:
        UsageError: it has too few held-out networks to judge by.
    """
    fitted = [model for model in lut.models if model.fitted]
    heldout = [model for model in lut.models if model.split == "heldout"]
    if len(heldout) < 6:
        raise UsageError(
            f"{len(heldout)} held-out networks can't decide anything; take a LUT with 6 of them or more"
        )
    boundaries = tuple(sorted({kinds for model in fitted for kinds in handed_mib(model.blocks)}))
    keys = sorted({key for model in fitted for key in model.blocks})
    counts = np.array([[1.0, *(Counter(model.blocks)[key] for key in keys)] for model in fitted])
    rows, others = _bytes(fitted, boundaries), _bytes(heldout, boundaries)
    unit = rows.max(axis=0)
    rank = _rank(counts)
    alone = [_rank(np.column_stack([counts, column])) > rank for column in (rows / unit).T]
    residual, seen = _residuals(lut, fitted)
    size = np.abs(rows / seen[:, None]).mean(axis=0)
    ridge = RidgeCV(alphas=STRENGTHS, fit_intercept=False).fit(rows / seen[:, None] / size, residual)
    left, ms = _residuals(lut, heldout)
    return Verdict(
        boundaries=boundaries,
        identified=tuple(kinds for kinds, found in zip(boundaries, alone, strict=True) if found),
        gained=_rank(np.hstack([counts, rows / unit])) - rank,
        without=np.abs(left),
        given=np.abs(left - ridge.predict(others / ms[:, None] / size)),
    )


def main(options: Options) -> str:
    """The verdicts on the LUTs of `--lut`, in a table; the section's text."""
    names = options.lut.split(",")
    verdicts = [verdict_of(load_lut(name)) for name in names]
    kept = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.better]
    says = (
        f"Kept by {', '.join(f'`{name}`' for name in kept)}."
        if kept
        else "No LUT here keeps the term: it is left out."
    )
    rows = [
        f"| `{name}` | {len(verdict.without)} | {len(verdict.boundaries)} | {verdict.gained} | "
        f"{verdict.without.mean():.3%} | {verdict.given.mean():.3%} | {_difference(verdict)} | {verdict.p:.2f} |"
        for name, verdict in zip(names, verdicts, strict=True)
    ]
    return f"""### A price for what blocks hand over (the notes' second term)

{says}
A price t_j for each kind of boundary (kind of block before and after) is kept where it is identified, which is that
its bytes are no combination of how often the blocks occur, and where it predicts held-out networks better (paired,
Wilcoxon): these prices are a ridge regression of what the LUT's fit leaves of the fitted networks. `more known` is
by how much the rank of these networks' counts grows with the bytes of all boundaries beside them; 0 says that
measuring them can't tell the term from the entries. The interval is over held-out networks.

| LUT | held out | kinds of boundaries | more known | MAPE without | with | difference, points | p |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _difference(verdict: Verdict) -> str:
    points = 100 * (verdict.given - verdict.without)
    half = 1.96 * points.std(ddof=1) / np.sqrt(len(points))
    middle, low, high = (
        round(float(value), 3) + 0.0 for value in (points.mean(), points.mean() - half, points.mean() + half)
    )
    return f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"


def _bytes(models: Sequence[MeasuredModel], boundaries: Sequence[Boundary]) -> Floats:
    handed = [handed_mib(model.blocks) for model in models]
    return np.array([[row.get(kinds, 0.0) for kinds in boundaries] for row in handed])


def _residuals(lut: Lut, models: Sequence[MeasuredModel]) -> tuple[Floats, Floats]:
    """(measured - predicted) / measured (n,), measured ms (n,)."""
    ms = np.array([model.ms for model in models])
    predicted = [lut.latency_model.predict(model.blocks, model.boundary_bytes).ms for model in models]
    return 1 - np.array(predicted) / ms, ms


def _rank(matrix: Floats) -> int:
    sizes = np.linalg.svd(matrix, compute_uv=False)
    return int((sizes > TOLERANCE * sizes[0]).sum())
