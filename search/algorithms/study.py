"""A running search: a strategy proposes, an evaluator scores, the study records."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeVar

import numpy as np

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.algorithms.cost import Prices
from search.algorithms.feasible import Candidates
from search.algorithms.objectives import Evaluator, InProcess, Objective, checked_accuracy
from search.algorithms.record import (
    Budget,
    Coarse,
    CoarseResult,
    Evaluated,
    Generation,
    SearchResult,
    SearchSettings,
    Sized,
)
from search.spaces import Arch, Space
from search.spaces.plugins import load_installed


class Study:
    """What a strategy knows of a search, and what it may propose with.

    Attributes:
        space: What is searched, which may be a part of a registered space.
        settings: How it is searched.
        candidates: The architectures within the budget, and what each costs.
        rng: For a strategy's own choices.
        generator: For its draws of arrays.
        evaluated: All that was evaluated, in that order.
        history: One entry for each generation.
    """

    def __init__(self, space: Space, prices: Prices, budget: Budget, settings: SearchSettings):
        """Compile the prices and find what the budget allows.

        Raises:
            InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
            UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
        """
        self.space, self.settings = space, settings
        self.rng = random.Random(settings.seed)
        self.generator = np.random.default_rng(settings.seed)
        self.candidates = Candidates(space, prices, budget, settings.draws, self.generator)
        self.evaluated: dict[Arch, Evaluated] = {}
        self.history: list[Generation] = []

    def add(self, archs: Sequence[Arch], accuracies: Sequence[float]) -> dict[Arch, Evaluated]:
        """Take note of one generation of new architectures."""
        batch = self.candidates.price(archs)
        new = {}
        for row, (arch, accuracy) in enumerate(zip(archs, accuracies, strict=True)):
            cost = batch[row]
            new[arch] = Evaluated(
                arch=arch.to_json(),
                accuracy=accuracy,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                further_latency_ms=tuple(latency.ms for latency in cost.further),
                further_latency_high_ms=tuple(latency.high_ms for latency in cost.further),
                params=cost.params,
                macs=cost.macs,
                memory_bytes=cost.memory_bytes,
                generation=len(self.history),
            )
        self.evaluated |= new
        best = max(row.accuracy for row in self.evaluated.values())
        mean = sum(accuracies) / len(accuracies)
        self.history.append(Generation(index=len(self.history), new=len(new), best=best, mean=mean))
        return new

    def loss(self, row: Evaluated) -> float:
        """L(s) + lambda C(s), see `SearchSettings.loss`."""
        return self.settings.loss(row.accuracy, row.latency_ms)

    def ranked(self) -> list[Arch]:
        """All evaluated architectures, best first; among equals the faster, then the smaller."""

        def key(arch: Arch) -> tuple[float, float, int, str]:
            row = self.evaluated[arch]
            return self.loss(row), row.latency_ms, row.params, row.arch

        return sorted(self.evaluated, key=key)

    def fresh(self, count: int, besides: Container[Arch] = ()) -> list[Arch]:
        """Up to `count` architectures within the budget at random, none evaluated and none of `besides`."""
        drawn: dict[Arch, None] = {}
        for _ in range(1 if self.candidates.whole else self.settings.redraws):
            if len(drawn) == count:
                break
            for arch in self.candidates.draw(count):
                if len(drawn) < count and arch not in self.evaluated and arch not in besides:
                    drawn[arch] = None
        return list(drawn)

    def breed(self, proposals: Sequence[Callable[[], Arch]]) -> list[Arch]:
        """A new architecture of each proposal, repaired where it breaks the budget; one that gives nothing new
        in `settings.redraws` attempts gives way to a draw from all within the budget."""
        chosen: dict[Arch, None] = {}
        waiting = list(proposals)
        for _ in range(self.settings.redraws):
            if not waiting:
                break
            archs, within = self.candidates.repair([propose() for propose in waiting])
            rejected = []
            for propose, arch, fits in zip(waiting, archs, within, strict=True):
                if fits and arch not in self.evaluated and arch not in chosen:
                    chosen[arch] = None
                else:
                    rejected.append(propose)
            waiting = rejected
        return [*chosen, *self.fresh(len(waiting), chosen)]

    def children(self, parent: Callable[[], Arch], mutate: Callable[[Arch], Arch]) -> list[Arch]:
        """The next generation of an evolution: crossovers and mutations of parents, as many as the settings say."""
        crossover = self.space.crossover
        proposals: list[Callable[[], Arch]] = [
            lambda: crossover(parent(), parent(), self.rng)
        ] * self.settings.crossovers
        return self.breed(proposals + [lambda: mutate(parent())] * self.settings.mutations)


class Strategy(ABC):
    """Proposes architectures, a generation at a time, and is told how good they are; made anew for each search.

    Attributes:
        study: What may be proposed, what was evaluated so far, and means to draw and to breed.
        skeletons: For the record, how many skeletons it began with; 0 where it knows none.
    """

    skeletons = 0

    def __init__(self, study: Study):
        self.study = study

    @abstractmethod
    def propose(self, count: int) -> Sequence[Arch]:
        """Up to `count` architectures for the next generation; none ends the search.

        They must be within the budget, as those of `study.fresh` and `study.breed` are. What was evaluated
        before is not evaluated again.
        """

    def tell(self, evaluated: Mapping[Arch, Evaluated]) -> None:  # noqa: B027 - most look at the study
        """Hear of the generation that was proposed last; the study knows of it already."""


Own = TypeVar("Own", bound=type[Strategy])

STRATEGIES: Registry[type[Strategy]] = Registry("strategy", load_installed)


def register_strategy(name: str) -> Callable[[Own], Own]:
    """Class decorator of a `Strategy`; `UsageError` where the name is taken or the class is not one."""

    def register(own: Own) -> Own:
        if not (isinstance(own, type) and issubclass(own, Strategy)):
            raise UsageError(f"strategy {name!r}: {own!r} is not a subclass of search.algorithms.Strategy")
        STRATEGIES.add(name, own)
        return own

    return register


def strategy_names() -> tuple[str, ...]:
    """Of all that are registered."""
    return STRATEGIES.names()


def get_strategy(name: str) -> type[Strategy]:
    """A strategy by name; `UsageError` with close names where there is none."""
    return STRATEGIES.get(name)


Begun = Callable[[float, int], None]
"""Called before the first evaluation with the share of the space that is within the budget, and how many
architectures will be evaluated: at most, where a strategy of one's own proposes fewer."""


def search(
    space: Space,
    prices: Prices,
    objective: Objective | Evaluator,
    budget: Budget,
    settings: SearchSettings | None = None,
    begun: Begun | None = None,
) -> SearchResult:
    """Find the best architecture within a budget; among equals the faster, then the smaller.

    The result depends on the arguments alone, so a killed search that is repeated with a caching evaluator goes
    on where it was.

    Args:
        space: May be a part of a registered one (fewer resolutions, heads or choices).
        prices: A LUT or its latency model, or several whose budgets must all hold.
        objective: What judges architectures: one after another in this process, or, as an evaluator, a
            generation at a time, see `CachedEvaluator`.
        budget: What a network may cost.
        settings: How to search, by default as AutoViT does.
        begun: Told what the budget leaves.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: an unknown strategy, a LUT lacks blocks of the space, or the budget does not name a latency
            for each LUT.
    """
    settings = settings or SearchSettings()
    make = get_strategy(settings.strategy)
    evaluator = objective if isinstance(objective, Evaluator) else InProcess(objective)
    study = Study(space, prices, budget, settings)
    sample = study.candidates.draw(settings.sample)[: settings.sample] if settings.additive else []
    if begun is not None:
        candidates = study.candidates
        fitting = len(candidates.pool) if candidates.whole else settings.evaluations
        begun(candidates.share, min(fitting, settings.evaluations) + len(sample))
    if sample:
        from search.algorithms.additive import SmoothedEvaluator  # brings in scikit-learn

        evaluator = SmoothedEvaluator(evaluator, sample, settings.additive)
    strategy = make(study)
    for generation in range(1 + settings.generations):
        count = settings.children if generation else settings.population
        archs = _proposed(study, strategy, count)
        if not archs:
            break
        accuracies = map(checked_accuracy, archs, evaluator.accuracies(archs))
        strategy.tell(study.add(archs, list(accuracies)))
    if not study.evaluated:
        raise UsageError(f"strategy {settings.strategy} proposed no architecture")
    candidates = study.candidates
    return SearchResult(
        space=space.name,
        space_digest=space.digest,
        evaluator=evaluator.fingerprint,
        price=candidates.compiled.fingerprint,
        budget=budget,
        settings=settings,
        coarse=Coarse(
            priced=candidates.priced,
            feasible=len(candidates.pool),
            feasible_share=min(1.0, candidates.share),
            skeletons=strategy.skeletons,
            smallest_ms=candidates.smallest_ms,
        ),
        history=tuple(study.history),
        evaluated=tuple(study.evaluated.values()),
        winner=study.evaluated[study.ranked()[0]],
    )


def _proposed(study: Study, strategy: Strategy, count: int) -> Sequence[Arch]:
    """The next generation, each architecture once and none that was evaluated.

    Raises:
        UsageError: they are too many, of another space, or beyond the budget.
    """
    name, proposed = study.settings.strategy, strategy.propose(count)
    archs = [arch for arch in dict.fromkeys(proposed) if arch not in study.evaluated]
    if len(archs) > count:
        raise UsageError(f"strategy {name} proposed {len(archs)} architectures, {count} were asked for")
    within = study.candidates.allow(archs)
    if not within.all():
        beyond = archs[int(within.argmin())]
        raise UsageError(
            f"strategy {name} proposed {beyond.to_json()}, which is beyond the budget; "
            "let study.fresh or study.breed make it"
        )
    return archs


def largest_within(
    space: Space, prices: Prices, budget: Budget, count: int, draws: int = 10_000, seed: int = 0
) -> CoarseResult:
    """The `count` networks within a budget with the most conv+linear MACs, then parameters; of equals the fastest.

    Args:
        space: May be a part of a registered one.
        prices: A LUT or its latency model, or several whose budgets must all hold.
        budget: What a network may cost.
        count: K of Algorithm 2.
        draws: Candidates drawn from within the budget; all of them, where there are no more.
        seed: Of the draws.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
    """
    candidates = Candidates(space, prices, budget, draws, np.random.default_rng(seed))
    compiled, pool = candidates.compiled, candidates.pool
    batch = compiled.price(pool)
    order = np.lexsort((*pool.T[::-1], batch.latency_ms[0], -batch.params, -batch.macs))[:count]
    networks = []
    for row, arch in zip(order, compiled.decode(pool[order]), strict=True):
        cost = batch[int(row)]
        networks.append(
            Sized(
                arch=arch.to_json(),
                macs=cost.macs,
                params=cost.params,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                further_latency_ms=tuple(latency.ms for latency in cost.further),
                further_latency_high_ms=tuple(latency.high_ms for latency in cost.further),
                memory_bytes=cost.memory_bytes,
            )
        )
    return CoarseResult(
        space=space.name,
        space_digest=space.digest,
        price=compiled.fingerprint,
        budget=budget,
        count=count,
        draws=draws,
        seed=seed,
        coarse=Coarse(
            priced=candidates.priced,
            feasible=len(pool),
            feasible_share=min(1.0, candidates.share),
            skeletons=0,
            smallest_ms=candidates.smallest_ms,
        ),
        whole=candidates.whole,
        networks=tuple(networks),
    )
