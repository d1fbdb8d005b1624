"""Marginal likelihood of the rows of a joint fit (`joint.py`), and the relative deviations that maximise it."""

from __future__ import annotations

import numpy as np

from luts.estimate.lattice import lattice_minimum
from luts.estimate.rows import Design
from luts.format.numbers import Floats

LEARNED = ("entry_sd", "misfit_sd", "kind_sd", "shared_sd", "bound_sd")
"""The deviations in their order; the last is only there where other devices' entries are."""

_CENTRE = np.log([0.1, 0.004, 0.3, 0.1])
_SD = np.array([1.0, 1.0, 0.7, 1.0])
"""Weak log-normal priors, which only matter for a handful of rows. In a trial entries strayed 10 to 20 % from
physics and additivity held to 0.3-0.6 %."""

USUAL = np.array([0.03, 0.004, 0.1, 0.04, 0.1])
_SD_OF_SOURCES = np.array([0.7, 0.7, 0.7, 0.7, 0.7])
"""The same for deviations from other devices' entries. Within a kind of block the entries of two of three phones
keep their ratio within 2 to 8 % (public tables, docs/lut.md); kinds and bounds differ by a tenth or more."""


class Marginal:
    """-2 log marginal likelihood of a design whose entries deviate by `scale` (k,), by the deviations."""

    def __init__(self, design: Design, scale: Floats) -> None:
        self._design = design
        columns = design.columns
        self.residual = 1.0 - columns @ design.common
        spread = columns * design.natural
        strengths = np.array(design.strengths or [2] * len(design.natural))
        by_entry = design.counts * scale
        by_call = design.calls * design.call_sd
        self._fixed = design.noise + by_call @ by_call.T + _squared(spread[:, strengths < 0])
        if design.doubt is not None:
            self._fixed = self._fixed + _squared(design.counts * design.doubt)
        self._parts = {
            0: by_entry @ by_entry.T,
            1: np.eye(len(self.residual)),
            3: by_entry @ design.kernel @ by_entry.T,
        }
        for place in sorted(set(strengths[strengths >= 0])):
            self._parts[int(place)] = _squared(spread[:, strengths == place])
        borrowed = bool(design.strengths)
        self._centre: Floats = np.log(USUAL) if borrowed else _CENTRE
        self._sd = _SD_OF_SOURCES if borrowed else _SD

    @property
    def widest(self) -> Floats:
        """(d,) largest standard deviations of the logarithms that their priors leave."""
        return self._sd

    def maximise(self) -> Floats:
        """The deviations at the mode of marginal likelihood times their weak priors."""
        return np.asarray(np.exp(lattice_minimum(self.cost, self._centre)))

    def covariance(self, learned: Floats) -> Floats:
        """(m, m) of the rows."""
        squares = learned**2
        return np.asarray(self._fixed + sum(squares[place] * part for place, part in self._parts.items()))

    def cost(self, logs: Floats) -> float:
        """-2 log of likelihood and priors, constants left out."""
        fit = _twice_negative_log(self.covariance(np.exp(logs)), self.residual)
        return fit + self._strain(logs)

    def _strain(self, logs: Floats) -> float:
        return float((((logs - self._centre) / self._sd) ** 2).sum())

    def evidence(self, learned: Floats) -> float:
        """-2 log of density and of the deviations' priors, for fits on other grounds to compare.

        Nothing is known of the device's speed: coefficients common to all kinds are drawn from around 0 by their
        natural size.
        """
        strain = self._strain(np.log(learned))
        if self._design.strengths:
            return strain + _twice_negative_log(self.covariance(learned), self.residual)
        columns = self._design.columns * self._design.natural
        kinds = len(self._design.kinds)
        common = columns.reshape(len(columns), kinds, -1).sum(axis=1)
        return strain + _twice_negative_log(
            self.covariance(learned) + _squared(common), np.ones(len(self.residual))
        )

    def left_out(self, learned: Floats) -> Floats:
        """(m,) errors of every row as the others predict it, in its predictive standard deviations (Rasmussen and
        Williams 2006, 5.4.2)."""
        inverse = np.linalg.inv(self.covariance(learned))
        return np.asarray((inverse @ self.residual) / np.sqrt(np.diag(inverse)))


def _squared(columns: Floats) -> Floats:
    return np.asarray(columns @ columns.T)


def _twice_negative_log(covariance: Floats, residual: Floats) -> float:
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, residual)
    return float(white @ white + 2 * np.log(np.diag(factor)).sum())
