"""Price classifiers with numbers of classes that a LUT did not measure, by the physics of its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from luts.build import estimates_of, fit_measured, stored_sources
from luts.estimate.joint import JointFit
from luts.format.lut import Lut
from luts.format.schema import Entry, KeyFeatures, classes_of, without_classes


def with_classifiers(lut: Lut, features: Mapping[str, KeyFeatures]) -> Lut:
    """Return the LUT with entries for classifiers that it did not measure, by key; no file changes.

    The joint fit is repeated from the LUT's samples with these keys added, which changes none of the others:
    no model has them. The difference of such a classifier to its sibling, the measured one that differs in
    the number of classes only, follows from the coefficients of its kind; the entry's interval is that of the
    difference, since held-out models represent networks with the sibling. The method of the entry is `prior`,
    so that predictions list it among weak blocks and add its interval to theirs.
    """
    estimation = estimates_of(lut)
    known = {entry.key: entry for entry in lut.entries}
    every = {key: entry.features for key, entry in known.items()} | dict(features)
    fit = fit_measured(lut.models, estimation, every, stored_sources(lut.meta, sorted(known)))
    added = []
    for key, own in features.items():
        ms, se = _priced(key, known, fit)
        half = fit.reach * se
        low, high = estimation.quiet.widen(ms, ms - half, ms + half)
        added.append(Entry.unmeasured(key, ms, low, high, own))
    return replace(lut, entries=tuple(sorted((*lut.entries, *added), key=lambda entry: entry.key)))


def _priced(key: str, known: Mapping[str, Entry], fit: JointFit) -> tuple[float, float]:
    """Return milliseconds of a classifier and their standard error, by its most informative sibling.

    More classes never cost less.
    """
    place = {name: 2 + position for position, name in enumerate(fit.keys)}
    own, covariance = place[key], fit.covariance
    siblings = [
        (float(covariance[own, own] + covariance[there, there] - 2 * covariance[own, there]), name)
        for name, entry in known.items()
        if entry.method == "design" and without_classes(name) == without_classes(key)
        for there in [place[name]]
    ]
    if not siblings:
        return float(fit.ms[own - 2]), float(fit.se[own - 2])
    variance, sibling = min(siblings)
    difference = float(fit.ms[own - 2] - fit.ms[place[sibling] - 2])
    more = (classes_of(key) or 0) > (classes_of(sibling) or 0)
    difference = max(difference, 0.0) if more else min(difference, 0.0)
    return max(known[sibling].ms + difference, 0.0), float(np.sqrt(max(variance, 0.0)))
