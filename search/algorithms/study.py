"""A running search: a strategy proposes architectures, an evaluator scores them, the study records them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.algorithms.bounds import fastest, too_slow
from search.algorithms.cost import Codes, CompiledSpace, Mask, Prices
from search.algorithms.feasible import ChannelLimits, FeasibleSet
from search.algorithms.objectives import (
    Evaluator,
    InProcess,
    Objective,
    SmoothedEvaluator,
    checked_accuracy,
)
from search.algorithms.record import (
    CoarseStage,
    Constraints,
    Evaluated,
    Generation,
    SearchResult,
    SearchSettings,
)
from search.spaces import Arch, Space
from search.spaces.plugins import load_installed


class Candidates:
    """Architectures of a space within constraints.

    Attributes:
        pool: All of them if they are few, else as many as requested, drawn uniformly.
        whole: Whether the pool contains all of them.
        priced: Architectures priced for the pool: all that may be within the constraints if these are few, else
            draws.
        share: Fraction of the space within the constraints; exact if the pool contains all, else estimated.
        smallest_ms: Smallest latency within the other constraints; its upper bound if they are cautious.
    """

    def __init__(
        self,
        space: Space,
        prices: Prices,
        constraints: Constraints,
        draws: int,
        generator: np.random.Generator,
    ):
        """Compile the space; `draws` is the largest pool, `generator` is used for these and all later draws.

        Raises:
            InfeasibleError: nothing meets the constraints; the message names the smallest possible latency.
            UsageError: a LUT lacks blocks of the space, or the constraints do not name a latency for each LUT.
        """
        scope = constraints.as_classifier
        classes = scope.classes if scope else None
        self.compiled = CompiledSpace(space, prices, constraints.confidence, classes)
        self._limits = ChannelLimits.of(self.compiled, constraints)
        self._generator = generator
        smallest = fastest(self.compiled, self._limits)
        if not self.allow([smallest.architecture()]).all():
            raise too_slow(self.compiled, constraints, smallest)
        self.smallest_ms = smallest.latency_high_ms if constraints.cautious else smallest.latency_ms
        self._feasible = FeasibleSet(self.compiled, self._limits)
        self.whole = self._feasible.most <= draws
        if self.whole:
            self.pool, self.priced = self._feasible.enumerate(), self._feasible.most
            self.share = len(self.pool) / space.size()
        else:
            drawn = self._feasible.sample(draws, generator)
            codes = np.concatenate([self.compiled.encode([smallest.architecture()]), drawn.codes])
            self.pool, self.priced = _distinct(codes), drawn.proposed
            self.share = self._feasible.most / space.size() * len(drawn.codes) / drawn.proposed

    def allow(self, archs: Sequence[Arch]) -> Mask:
        """Return which are within the constraints; raise UsageError for one outside the space."""
        return self._limits.allow(self.compiled, self.compiled.encode(archs))

    def repair(self, archs: Sequence[Arch]) -> tuple[list[Arch], Mask]:
        """Return similar valid architectures, and which of them are within the constraints."""
        codes, within = self._feasible.repair(self.compiled.encode(archs), self._generator)
        return self.compiled.decode(codes), within

    def draw(self, count: int) -> list[Arch]:
        """Return the pool in random order if it contains all, else about `count` new draws."""
        if self.whole:
            return self.compiled.decode(self.pool[self._generator.permutation(len(self.pool))])
        return self.compiled.decode(self._feasible.sample(count, self._generator).codes)

    def largest(self, count: int, *, deepest: bool = False) -> Codes:
        """Return the candidates with the most MACs, then parameters, the largest first.

        With `deepest`, those of the greatest depth, then the most MACs. Exact if the pool contains
        all, and up to `feasible.MAX_EXTENDED` extensions else; after these the pool's largest complete the list.
        """
        channels = self.compiled.channels
        pool = self.pool
        if not self.whole:
            first, second, unit = (
                (channels.depth, channels.macs, 1e-12) if deepest else (channels.macs, channels.params, 1e-9)
            )
            added = [table.costs[first] + unit * table.costs[second] for table in self.compiled.tables]
            pool = _distinct(np.concatenate([self._feasible.largest(count, added), pool]))
        costs = self.compiled.price(pool)
        sizes = (-costs.macs, -costs.depth) if deepest else (-costs.params, -costs.macs)
        order = np.lexsort((*pool.T[::-1], costs.latency_ms[0], *sizes))
        rows: Codes = pool[order[:count]]
        return rows


def _distinct(codes: Codes) -> Codes:
    """Return each row once, at its first position."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return np.asfortranarray(codes[np.sort(first)])


FEWEST_SAMPLED = 10
"""Networks below which no additive surrogate is fitted."""


class Study:
    """State of a search, and what a strategy may propose with.

    Attributes:
        space: The space that is searched, which may be a part of a registered space.
        candidates: The architectures within the constraints, and their costs.
        rng: For a strategy's own choices.
        generator: For its draws of arrays.
        sample: Random candidates that the additive surrogate is fitted to; empty without one, and where there are
            fewer than `FEWEST_SAMPLED`.
        evaluated: All evaluated architectures, in that order.
        history: One entry for each generation.
    """

    def __init__(self, space: Space, prices: Prices, constraints: Constraints, settings: SearchSettings):
        """Compile the prices and find what the constraints allow; raises the errors of `Candidates`."""
        self.space, self.settings = space, settings
        self.rng = random.Random(settings.seed)
        self.generator = np.random.default_rng(settings.seed)
        self.candidates = Candidates(space, prices, constraints, settings.draws, self.generator)
        drawn = self.candidates.draw(settings.sample)[: settings.sample] if settings.additive else []
        self.sample = drawn if len(drawn) >= FEWEST_SAMPLED else []
        self.evaluated: dict[Arch, Evaluated] = {}
        self.history: list[Generation] = []

    def rows(self, archs: Sequence[Arch], accuracies: Iterable[float]) -> list[Evaluated]:
        """Return architectures with their costs and accuracies, as those of the current generation."""
        priced = self.candidates.compiled.priced(self.candidates.compiled.encode(archs))
        return [
            Evaluated(**row.model_dump(), accuracy=accuracy, generation=len(self.history))
            for row, accuracy in zip(priced, accuracies, strict=True)
        ]

    def add(self, archs: Sequence[Arch], accuracies: Sequence[float]) -> dict[Arch, Evaluated]:
        """Record one generation of new architectures."""
        generation, new = len(self.history), dict(zip(archs, self.rows(archs, accuracies), strict=True))
        self.evaluated |= new
        best = max(row.accuracy for row in self.evaluated.values())
        mean = sum(accuracies) / len(accuracies)
        self.history.append(Generation(index=generation, new=len(new), best=best, mean=mean))
        return new

    def ranked(self) -> list[Arch]:
        """Return all evaluated architectures, best first; among equals the faster, then the smaller."""
        return sorted(self.evaluated, key=lambda arch: self.settings.rank_key(self.evaluated[arch]))

    def largest(self, count: int, *, deepest: bool = False) -> list[Arch]:
        """Return the largest candidates, see `Candidates.largest`; they may have been evaluated."""
        return self.candidates.compiled.decode(self.candidates.largest(count, deepest=deepest))

    def fresh(self, count: int, besides: Container[Arch] = ()) -> list[Arch]:
        """Return up to `count` random architectures within the constraints, new and not in `besides`."""
        drawn: dict[Arch, None] = {}
        for _ in range(1 if self.candidates.whole else self.settings.redraws):
            if len(drawn) == count:
                break
            for arch in self.candidates.draw(count):
                if len(drawn) < count and arch not in self.evaluated and arch not in besides:
                    drawn[arch] = None
        return list(drawn)

    def breed(self, proposals: Sequence[Callable[[], Arch]]) -> list[Arch]:
        """Return a new architecture for each proposal, repaired if it violates the constraints.

        A proposal that gives nothing new in `settings.redraws` attempts is replaced by a random architecture.
        """
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
        """Return the next generation of an evolution: as many crossovers and mutations as the settings say."""
        crossover = self.space.crossover
        proposals: list[Callable[[], Arch]] = [
            lambda: crossover(parent(), parent(), self.rng)
        ] * self.settings.crossovers
        return self.breed(proposals + [lambda: mutate(parent())] * self.settings.mutations)


class Strategy(ABC):
    """Proposes architectures, a generation at a time, and receives their accuracies; created for each search.

    Attributes:
        study: The search so far, and means to draw and to breed.
        skeletons: Number of skeletons it started with, for the record; 0 if it has none.
    """

    skeletons = 0

    def __init__(self, study: Study):
        """Propose for this study."""
        self.study = study

    @abstractmethod
    def propose(self, count: int) -> Sequence[Arch]:
        """Return up to `count` architectures for the next generation; none ends the search.

        They must be within the constraints, as those of `study.fresh` and `study.breed` are. Architectures that
        were evaluated before are not evaluated again.
        """

    def tell(self, evaluated: Mapping[Arch, Evaluated]) -> None:  # noqa: B027 - most strategies read the study
        """Receive the results of the last proposed generation, which the study has recorded already."""


Own = TypeVar("Own", bound=type[Strategy])

STRATEGIES: Registry[type[Strategy]] = Registry("strategy", load_installed)


def register_strategy(name: str) -> Callable[[Own], Own]:
    """Return a class decorator that registers a `Strategy`.

    Raises:
        UsageError: the name is taken, or the class is not a subclass of Strategy.
    """

    def register(own: Own) -> Own:
        if not (isinstance(own, type) and issubclass(own, Strategy)):
            raise UsageError(
                f"strategy {name!r}: {own!r} is not a subclass of search.algorithms.Strategy",
                code="not_a_strategy",
            )
        STRATEGIES.add(name, own)
        return own

    return register


def strategy_names() -> tuple[str, ...]:
    """Return the names of all registered strategies."""
    return STRATEGIES.names()


def get_strategy(name: str) -> type[Strategy]:
    """Return the strategy with this name; raise UsageError with similar names if there is none."""
    return STRATEGIES.get(name)


OnStart = Callable[[float, int], None]
"""Called before the first evaluation with the fraction of the space within the constraints and the number of
evaluations, which is an upper bound for a strategy that proposes fewer."""


def search(
    space: Space,
    prices: Prices,
    objective: Objective | Evaluator,
    constraints: Constraints,
    settings: SearchSettings | None = None,
    on_start: OnStart | None = None,
) -> SearchResult:
    """Find the best architecture within constraints; among equals the faster, then the smaller.

    The result depends on the arguments alone, so a killed search resumes when it is repeated with an evaluator that
    caches.

    Args:
        space: May be a part of a registered space (fewer resolutions, heads or choices).
        prices: A LUT or its latency model, or several whose latency limits must all hold.
        objective: An objective, which evaluates architectures one by one in this process, or an evaluator, which
            evaluates a generation at a time, see `CachedEvaluator`.
        constraints: Limits of a network's costs.
        settings: How to search; by default as AutoViT does.
        on_start: Called once before the first evaluation.

    Raises:
        InfeasibleError: nothing meets the constraints; the message names the smallest possible latency.
        UsageError: unknown strategy, a LUT lacks blocks of the space, or the constraints do not name a latency for
            each LUT.
    """
    settings = settings or SearchSettings()
    strategy_class = get_strategy(settings.strategy)
    evaluator = objective if isinstance(objective, Evaluator) else InProcess(objective)
    study = Study(space, prices, constraints, settings)
    candidates = study.candidates
    if on_start is not None:
        fitting = len(candidates.pool) if candidates.whole else settings.evaluations
        on_start(candidates.share, min(fitting, settings.evaluations + len(study.sample)))
    if study.sample:
        evaluator = SmoothedEvaluator(evaluator, study.sample, settings.additive)
    strategy = strategy_class(study)
    for generation in range(1 + settings.generations):
        count = settings.children if generation else settings.population
        archs = _proposed(study, strategy, count)
        if not archs:
            break
        accuracies = map(checked_accuracy, archs, evaluator.accuracies(archs))
        strategy.tell(study.add(archs, list(accuracies)))
    if not study.evaluated:
        raise UsageError(
            f"strategy {settings.strategy} proposed no architecture; correct its propose method",
            code="invalid_proposal",
        )
    rules = [*study.largest(1), *study.largest(1, deepest=True)]
    new = [arch for arch in dict.fromkeys(rules) if arch not in study.evaluated]
    values = map(checked_accuracy, new, evaluator.accuracies(new) if new else [])
    known = study.evaluated | dict(zip(new, study.rows(new, values), strict=True))
    return SearchResult(
        space=space.name,
        space_digest=space.digest,
        evaluator=evaluator.fingerprint,
        price=candidates.compiled.fingerprint,
        constraints=constraints,
        settings=settings,
        coarse=CoarseStage(
            priced=candidates.priced,
            feasible=len(candidates.pool),
            feasible_share=min(1.0, candidates.share),
            skeletons=strategy.skeletons,
            smallest_ms=candidates.smallest_ms,
            whole=candidates.whole,
        ),
        history=tuple(study.history),
        evaluated=tuple(study.evaluated.values()),
        winner=study.evaluated[study.ranked()[0]],
        largest=known[rules[0]],
        deepest=known[rules[1]],
    )


def _proposed(study: Study, strategy: Strategy, count: int) -> Sequence[Arch]:
    """Return the next generation, each architecture once and none that was evaluated.

    Raises:
        UsageError: they are too many, of another space, or violate the constraints.
    """
    name, proposed = study.settings.strategy, strategy.propose(count)
    archs = [arch for arch in dict.fromkeys(proposed) if arch not in study.evaluated]
    if len(archs) > count:
        raise UsageError(
            f"strategy {name} proposed {len(archs)} architectures, but {count} were requested; propose fewer",
            code="invalid_proposal",
        )
    within = study.candidates.allow(archs)
    if not within.all():
        violating = archs[int(within.argmin())]
        raise UsageError(
            f"strategy {name} proposed {violating.to_json()}, which violates the constraints; "
            "create architectures with study.fresh or study.breed",
            code="invalid_proposal",
        )
    return archs
