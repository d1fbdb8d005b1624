"""What the choices of an architecture are worth one by one, which steadies what a supernet says of it whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline

from search.algorithms.objectives import Evaluator
from search.spaces import Arch

PENALTIES = np.logspace(-3, 3, 13)
"""Of the ridge regression; leaving out one network at a time chooses among them."""


class AdditiveModel:
    """A sum over the choices of an architecture, as a latency table is a sum over its blocks.

    One-hot of every stage's choices, of the stages there are, of resolution and head; fitted by ridge regression.
    """

    def __init__(self, archs: Sequence[Arch], values: Sequence[float]):
        """`values`: what was found of each architecture."""
        self._fitted: Pipeline = make_pipeline(DictVectorizer(), RidgeCV(PENALTIES))
        self._fitted.fit(list(map(_choices, archs)), np.asarray(values))

    def predict(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked; 0 to 1, as what it was fitted to."""
        return [float(value) for value in np.clip(self._fitted.predict(list(map(_choices, archs))), 0, 1)]


@dataclass(frozen=True)
class SmoothedEvaluator:
    """An `Evaluator`: of each architecture the mean of its own value and of an additive model's.

    How choices go together in a supernet is in part how its weights got used to each other: on NAS-Bench-Macro the
    sum of single choices ranks networks more as training each alone does, and the mean of both most
    (docs/results.md).

    Attributes:
        evaluator: Gives architectures their own values.
        sample: What the model is fitted to.
        share: Of the model in the mean.
    """

    evaluator: Evaluator
    sample: Sequence[Arch]
    share: float

    @property
    def fingerprint(self) -> str:
        """The evaluator's; share and number are a search's settings, its seed draws the sample."""
        return self.evaluator.fingerprint

    @cached_property
    def model(self) -> AdditiveModel:
        """Evaluates the sample."""
        return AdditiveModel(self.sample, self.evaluator.accuracies(self.sample))

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked."""
        pairs = zip(self.model.predict(archs), self.evaluator.accuracies(archs), strict=True)
        return [self.share * predicted + (1 - self.share) * own for predicted, own in pairs]


def _choices(arch: Arch) -> Mapping[str, str]:
    """Name and value of each."""
    chosen = {"resolution": str(arch.resolution), "head": arch.head}
    for stage, values in zip(arch.search_space.stages, arch.stages, strict=False):
        chosen[stage.name] = "there"
        chosen |= {
            f"{stage.name}.{name}": f"{value:g}" for name, value in zip(stage.names, values, strict=True)
        }
    return chosen
