"""What a search is asked: what a network may cost, and how it is searched for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from luts.format.registry import NAME
from luts.format.values import Value

INHERITED_ACCURACY = "inherited-accuracy"
INHERITED_LIKELIHOOD = "inherited-likelihood"
"""Name of the objective that is top-1 with weights inherited from a supernet."""


class Budget(Value):
    """What an architecture may cost; everything given must hold.

    Attributes:
        latency_ms: By the first LUT.
        least_params: Fewest parameters, such as the supernet's subnets have.
        further_latency_ms: By each further LUT, in their order (several phones, each with its own budget).
        memory_bytes: Peak of activations, see `search.blocks.peak_activation_bytes`.
        cautious: A chance constraint: the bound under which a measured latency stays with probability
            `confidence` is held to the budget, phone by phone, not the prediction itself.
    """

    latency_ms: float = Field(gt=0)
    further_latency_ms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    params: int | None = Field(default=None, gt=0)
    least_params: int | None = Field(default=None, gt=0)
    macs: int | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)


Criterion = Literal["accuracy", "latency", "params", "macs", "memory"]
"""What architectures are compared by; `accuracy` is what the objective says."""


class SearchSettings(Value):
    """How to search; the defaults are those of AutoViT section 4.1 where it names them.

    Every strategy evaluates `population` architectures and then `crossovers` + `mutations` in each generation,
    fewer only where the budget leaves no others.

    Attributes:
        strategy: Name of a registered one; a record may hold one that is not registered where it is read.
        draws: Architectures within the budget that are drawn for the coarse stage; where it leaves no more, all
            of them are enumerated.
        skeletons: K of the coarse stage.
        redraws: Attempts at a new child before one drawn from all within the budget takes its place.
        ms_per_loss: lambda of the joint objective min L(s) + lambda C(s) of AutoViT's journal version with L the
            latency in ms by the first LUT, as in its L(s) <= L_max, and C the share of wrong answers; 0 for none.
        loss_per_ms: lambda of the other reading: L the share of wrong answers, C the latency in ms; 0 for none.
            Without either, accuracy alone ranks.
        objectives: What `pareto` trades against each other.
        additive: Share of an additive model of the choices in what an architecture is judged by; 0 for its own
            value alone (`search.algorithms.evaluation.additive`).
        sample: Random architectures within the budget that the model is fitted to, evaluated besides the others.
    """

    strategy: str = Field(default="coarse-to-fine", pattern=NAME)
    seed: int = 0
    draws: int = Field(default=10_000, ge=1, le=1_000_000)
    skeletons: int = Field(default=25, ge=1)
    population: int = Field(default=50, ge=1)
    generations: int = Field(default=20, ge=0)
    parents: int = Field(default=10, ge=1)
    crossovers: int = Field(default=25, ge=0)
    mutations: int = Field(default=25, ge=0)
    p_depth: float = Field(default=0.2, ge=0, le=1)
    p_block: float = Field(default=0.4, ge=0, le=1)
    redraws: int = Field(default=50, ge=1)
    ms_per_loss: float = Field(default=0.0, ge=0)
    loss_per_ms: float = Field(default=0.0, ge=0)
    objectives: tuple[Criterion, ...] = ("accuracy", "latency")
    additive: float = Field(default=0.0, ge=0, le=1)
    sample: int = Field(default=100, ge=10, le=100_000)

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if self.ms_per_loss and self.loss_per_ms:
            raise ValueError(
                "ms_per_loss and loss_per_ms are two readings of one objective; give one of them"
            )
        return self

    def loss(self, accuracy: float, latency_ms: float) -> float:
        """What a search makes small: L(s) + lambda C(s) in the reading that was chosen."""
        wrong = 1.0 - accuracy
        if self.ms_per_loss:
            return latency_ms + self.ms_per_loss * wrong
        return wrong + self.loss_per_ms * latency_ms

    @property
    def children(self) -> int:
        """Architectures of a generation after the first."""
        return self.crossovers + self.mutations

    @property
    def evaluations(self) -> int:
        """Architectures that are evaluated where the budget allows so many."""
        return self.population + self.generations * self.children
