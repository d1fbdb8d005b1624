"""The search itself: a strategy proposes, an evaluator judges, the strategy is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luts.format.errors import UsageError
from search.algorithms.interfaces.objective import Evaluator, InProcess, Objective, checked_accuracy
from search.algorithms.pricing.price import Prices
from search.algorithms.record.result import Coarse, SearchResult
from search.algorithms.record.settings import Budget, SearchSettings
from search.algorithms.study.strategy import Strategy, get_strategy
from search.algorithms.study.study import Study
from search.spaces import Arch, Space

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
        from search.algorithms.evaluation.additive import SmoothedEvaluator  # brings in scikit-learn

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
