"""Quantiles of the distributions that intervals are made of.

scipy is loaded with the first call: its distributions take longer to import than the whole command line, which
must answer `--help` too.
"""

from __future__ import annotations

import numpy as np


def normal_quantile(probability: float) -> float:
    """Of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def student_quantile(probability: float, df: float) -> float:
    """Of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def binomial_quantile(probability: float, trials: int, success: float) -> int:
    """Smallest number of successes out of `trials` not exceeded with at least this probability, in (0, 1]."""
    from scipy.special import bdtr

    return int(np.searchsorted(bdtr(np.arange(trials + 1), trials, success), probability))
