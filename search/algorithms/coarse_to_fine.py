"""Latency-aware coarse-to-fine search (AutoViT, Algorithm 2)."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable

from luts.errors import InfeasibleError
from search.algorithms.cheapest import cheapest
from search.algorithms.interfaces import Evaluator, Price, Priced
from search.algorithms.record import Budget, Coarse, Evaluated, Generation, SearchResult, SearchSettings
from search.spaces import Arch, Space

Watch = Callable[[Evaluated, int], None]
"""Called after every evaluation with it and the number so far."""


def search(
    space: Space,
    price: Price,
    evaluator: Evaluator,
    budget: Budget,
    settings: SearchSettings,
    watch: Watch | None = None,
) -> SearchResult:
    """Find the most accurate architecture within a budget; among equals the faster, then the smaller.

    `space` may be a part of a registered one (fewer resolutions or heads). The result depends on the arguments
    alone, so a killed search that is repeated with a caching evaluator goes on where it was.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
    """
    rng = random.Random(settings.seed)
    pool, coarse = coarse_stage(space, price, budget, settings, rng)
    fine = _Fine(space, price, evaluator, budget, settings, rng, pool, watch)
    history = [fine.evaluate(0, _initial_population(pool, settings, rng))]
    for index in range(1, settings.generations + 1):
        children = fine.children()
        if not children:
            break
        history.append(fine.evaluate(index, children))
    ranked = fine.ranked()
    return SearchResult(
        space=space.name,
        space_digest=space.digest,
        evaluator=evaluator.fingerprint,
        price=price.fingerprint,
        budget=budget,
        settings=settings,
        coarse=coarse,
        history=tuple(history),
        evaluated=tuple(fine.evaluated.values()),
        winner=fine.evaluated[ranked[0]],
    )


def skeleton(arch: Arch) -> Hashable:
    """What mutation around a candidate keeps fixed in spirit: resolution, head and the widths of the stages."""
    return arch.resolution, arch.head, tuple(row[0] for row in arch.stages)


def coarse_stage(
    space: Space, price: Price, budget: Budget, settings: SearchSettings, rng: random.Random
) -> tuple[dict[Arch, Priced], Coarse]:
    """Architectures within the budget, most MACs first: of equal price, more computation is the better guess."""
    corners = cheapest(space, price)
    affordable = [c for c in corners if budget.params is None or c.params <= budget.params]
    if not affordable:
        raise InfeasibleError(
            f"no architecture of {space.name} has at most {budget.params} parameters; "
            f"the smallest has {min(c.params for c in corners)} (and {corners[-1].latency_ms:.3g} ms)"
        )
    smallest_ms = affordable[0].latency_ms
    drawn: Iterable[Arch] = space
    if space.size() > settings.draws:
        drawn = [space.sample(rng) for _ in range(settings.draws)] + [c.arch for c in affordable]
    priced = {arch: price.price(arch) for arch in dict.fromkeys(drawn)}
    feasible = {arch: cost for arch, cost in priced.items() if budget.allows(cost)}
    if not feasible:
        raise InfeasibleError(_refusal(space, price, budget, affordable[0].arch))
    ordered = sorted(
        feasible, key=lambda arch: (-feasible[arch].macs, feasible[arch].latency_ms, arch.to_json())
    )
    pool = {arch: feasible[arch] for arch in ordered}
    kept = min(settings.skeletons, len({skeleton(arch) for arch in pool}))
    return pool, Coarse(priced=len(priced), feasible=len(pool), skeletons=kept, smallest_ms=smallest_ms)


def _refusal(space: Space, price: Price, budget: Budget, fastest: Arch) -> str:
    cost = price.price(fastest)
    asked = f"{budget.latency_ms:g} ms"
    if budget.params is not None:
        asked += f" and {budget.params} parameters"
    reach = f"the smallest latency that can be reached is {cost.latency_ms:.4g} ms"
    if budget.cautious:
        reach += f" (upper end of its interval {cost.latency_high_ms:.4g} ms, which is what counts)"
    return f"no architecture of {space.name} meets {asked}; {reach}; allow more"


def _initial_population(pool: dict[Arch, Priced], settings: SearchSettings, rng: random.Random) -> list[Arch]:
    """The best candidate of each of the top K skeletons, then others within the budget at random."""
    best: dict[Hashable, Arch] = {}
    for arch in pool:
        best.setdefault(skeleton(arch), arch)
    chosen = list(best.values())[: min(settings.skeletons, settings.population)]
    rest = [arch for arch in pool if arch not in set(chosen)]
    return chosen + rng.sample(rest, min(len(rest), settings.population - len(chosen)))


class _Fine:
    """Evolution on accuracy; no architecture is evaluated twice and none leaves the budget."""

    def __init__(
        self,
        space: Space,
        price: Price,
        evaluator: Evaluator,
        budget: Budget,
        settings: SearchSettings,
        rng: random.Random,
        pool: dict[Arch, Priced],
        watch: Watch | None,
    ):
        self.space, self.price, self.evaluator, self.budget = space, price, evaluator, budget
        self.settings, self.rng, self.pool, self.watch = settings, rng, pool, watch
        self.evaluated: dict[Arch, Evaluated] = {}

    def evaluate(self, index: int, archs: list[Arch]) -> Generation:
        """Evaluate a generation."""
        for arch, accuracy in zip(archs, self.evaluator.accuracies(archs), strict=True):
            cost = self.price.price(arch)
            result = Evaluated(
                arch=arch.to_json(),
                accuracy=accuracy,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                params=cost.params,
                macs=cost.macs,
                generation=index,
            )
            self.evaluated[arch] = result
            if self.watch is not None:
                self.watch(result, len(self.evaluated))
        new = [self.evaluated[arch].accuracy for arch in archs]
        best = max(found.accuracy for found in self.evaluated.values())
        return Generation(index=index, new=len(new), best=best, mean=sum(new) / len(new))

    def ranked(self) -> list[Arch]:
        """All evaluated architectures, best first."""
        found = self.evaluated
        return sorted(
            found, key=lambda a: (-found[a].accuracy, found[a].latency_ms, found[a].params, found[a].arch)
        )

    def children(self) -> list[Arch]:
        """The next generation: crossovers and mutations of the best so far, all new and within the budget."""
        settings, rng = self.settings, self.rng
        parents = self.ranked()[: settings.parents]

        def cross() -> Arch:
            return self.space.crossover(rng.choice(parents), rng.choice(parents), rng)

        def mutate() -> Arch:
            return self.space.mutate(rng.choice(parents), rng, settings.p_depth, settings.p_block)

        spare = [arch for arch in self.pool if arch not in self.evaluated]
        rng.shuffle(spare)
        chosen: dict[Arch, None] = {}
        for make in [cross] * settings.crossovers + [mutate] * settings.mutations:
            child = self._redraw(make, chosen)
            while child is None and spare:
                candidate = spare.pop()
                child = candidate if candidate not in chosen else None
            if child is not None:
                chosen[child] = None
        return list(chosen)

    def _redraw(self, make: Callable[[], Arch], chosen: dict[Arch, None]) -> Arch | None:
        for _ in range(self.settings.redraws):
            child = make()
            known = child in self.evaluated or child in chosen
            if not known and self.budget.allows(self.price.price(child)):
                return child
        return None
