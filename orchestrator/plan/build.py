"""Which whole models to build and measure so that every block of a space gets its latency.

All but the held-out ones are rows of one joint fit:
- removals (AutoViT, section 3.3.2): bases, and each base without one of its blocks;
- swaps, for blocks whose removal breaks shapes: neighbours of a base;
- design: architectures chosen one by one for the largest reduction of the error of predictions, so that the
first n of them are a good plan of n;
- held out: random architectures that are never fitted and only measure the error of predictions.
"""

from __future__ import annotations

import math
import operator
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from luts.estimate.design import (
    TYPICAL_DEVICE,
    ExpectedCosts,
    Posterior,
    most_informative_first,
    prior_from_physics,
    prior_from_sources,
)
from luts.format.errors import UsageError
from luts.format.schema import KeyFeatures
from orchestrator.plan.plan import (
    Plan,
    PlanModel,
    Removals,
    Role,
    features_of,
    features_of_plan,
    model_id,
    planning_features,
)
from search.blocks import parse_key
from search.spaces import Arch, Space, get_space, list_archs
from search.spaces.registry import arch_from_json


@dataclass(frozen=True)
class Swap:
    """A neighbour of a base: `gone` are the base's keys that occur fewer times in it, `come` the reverse."""

    arch: Arch
    gone: tuple[str, ...]
    come: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of blocks that differ, on the side that has more of them."""
        return max(len(self.gone), len(self.come))


def neighbour_swaps(space: Space, base: Arch) -> Iterator[Swap]:
    """Yield all neighbours of an architecture in a fixed order, those that change fewer values of a stage first."""
    blocks = Counter(base.keys())
    for arch in _neighbours(space, base):
        try:
            space.check(arch)
        except UsageError:
            continue
        others = Counter(arch.keys())
        yield Swap(
            arch,
            tuple(sorted((blocks - others).elements())),
            tuple(sorted((others - blocks).elements())),
        )


def _neighbours(space: Space, base: Arch) -> Iterator[Arch]:
    for index, stage in enumerate(space.stages[: len(base.stages)]):
        mine = base.stages[index]
        alike = sorted(stage.options, key=lambda values: sum(map(operator.ne, values, mine)))
        for values in alike[1:]:
            yield replace(base, stages=(*base.stages[:index], values, *base.stages[index + 1 :]))
    for head in space.heads:
        if head != base.head:
            yield replace(base, head=head)
    yield replace(base, stages=base.stages[:-1])


def choose_swaps(space: Space, bases: Mapping[str, Arch], keys: Set[str]) -> list[tuple[str, Swap, str]]:
    """Return few swaps that isolate every one of `keys` that any swap isolates, as small as possible.

    A swap isolates the keys on both of its sides. Each result is the base, the swap, and the base's key that
    the swap lacks.
    """
    offers = [
        (name, swap, (set(swap.gone) | set(swap.come)) & keys)
        for name, base in bases.items()
        for swap in neighbour_swaps(space, base)
        if swap.gone
    ]
    smallest: dict[str, int] = {}
    for _, swap, shown in offers:
        for key in shown:
            smallest[key] = min(swap.size, smallest.get(key, swap.size))
    best = [{key for key in shown if smallest[key] == swap.size} for _, swap, shown in offers]
    waiting, chosen = set(smallest), []
    while waiting:
        index = max(range(len(offers)), key=lambda i: (len(best[i] & waiting), -i))
        name, swap, _ = offers[index]
        gone = sorted(best[index] & waiting & set(swap.gone)) or sorted(keys & set(swap.gone)) or swap.gone
        chosen.append((name, swap, gone[0]))
        waiting -= best[index]
    return chosen


TARGETS = 400
"""Candidates whose predictions the design narrows; candidates are random, so any are a sample of the space."""


def posterior_given(
    features: Mapping[str, KeyFeatures],
    expectation: ExpectedCosts,
    *,
    measured: Sequence[Sequence[str]],
    typical: Sequence[Sequence[str]],
) -> Posterior:
    """Return the posterior once models with these blocks are measured; `typical` networks scale the prior."""
    features = planning_features(features)
    if expectation.sources:
        posterior = prior_from_sources(features, expectation.sources, typical)
    else:
        posterior = prior_from_physics(features, expectation, typical)
    for blocks in measured:
        posterior.learn(posterior.row(blocks))
    return posterior


def choose_design(
    features: Mapping[str, KeyFeatures],
    expectation: ExpectedCosts,
    *,
    measured: Sequence[Sequence[str]],
    candidates: Sequence[Sequence[str]],
    count: int,
) -> list[int]:
    """Return positions of `count` candidates in order of usefulness, given `measured` models in the plan."""
    if not count:
        return []
    typical = candidates[:TARGETS]
    posterior = posterior_given(features, expectation, measured=measured, typical=typical)
    rows = np.stack([posterior.row(blocks) for blocks in candidates])
    return most_informative_first(posterior, rows, rows[: len(typical)], count)


CANDIDATES = 1500
"""Random architectures among which bases and design models are chosen."""

DRAWS = 400
"""Attempts to draw an architecture that is not in the plan yet."""

RARE_DRAWS = 100_000
"""Attempts to draw one that contains a block that no candidate has: such a block is in one network of
hundreds.
"""

KEYS_PER_DESIGN = 3
"""Besides removals and swaps, one design model for so many block keys by default."""

HELDOUT_SHARE = 0.2
MIN_HELDOUT = 10
"""Held out by default: this fraction of all whole models, and at least as many as a 90 % conformal interval
needs (nine), plus one.
"""


def make_plan(
    space: Space,
    *,
    resolutions: tuple[int, ...] | None = None,
    seed: int = 0,
    design: int | None = None,
    heldout: int | None = None,
    removals: Removals = "all",
    expectation: ExpectedCosts = TYPICAL_DEVICE,
) -> Plan:
    """Choose the models of a profile; the same arguments give the same plan.

    Args:
        space: The space to profile.
        resolutions: Input resolutions to cover; default: the space's default one.
        seed: Seed of every random choice.
        design: Number of design models; default: one for every three block keys.
        heldout: Number of held-out models; default: a fifth of all, at least ten.
        removals: `all` removes or swaps every block of the space once, `reference` those of the reference.
        expectation: Expected costs of blocks; they influence the design a little.

    Raises:
        UsageError: A resolution is not one of the space's, or the space has too few architectures.
    """
    resolutions = resolutions or (space.default_resolution,)
    foreign = sorted(set(resolutions) - set(space.resolutions))
    if foreign:
        raise UsageError(
            f"{space.name} has no resolution {foreign[0]}; it has {list(space.resolutions)}",
            code="unknown_resolution",
        )
    rng = random.Random(f"{space.digest}:{seed}")
    keys = [spec.key for spec in space.block_specs(resolutions)]
    builder = _Builder(space, resolutions, rng)
    builder.add_removals(keys, removals)
    builder.add_swaps(keys, removals)
    builder.add_design(math.ceil(len(keys) / KEYS_PER_DESIGN) if design is None else design, expectation)
    builder.add_heldout(heldout_count(len(builder.models)) if heldout is None else heldout)
    return Plan(space.name, space.digest, space.default_classes, resolutions, seed, tuple(builder.models))


def heldout_count(fitted: int) -> int:
    """Return how many models to hold out for so many fitted ones."""
    return max(round(fitted * HELDOUT_SHARE / (1 - HELDOUT_SHARE)), MIN_HELDOUT)


class _Builder:
    """Grows the list of models; no model is listed twice."""

    def __init__(self, space: Space, resolutions: tuple[int, ...], rng: random.Random):
        self.space, self.resolutions, self.rng = space, resolutions, rng
        self.models: list[PlanModel] = []
        self._known: set[str] = set()
        self._add_arch(self._reference(), "reference")

    def _reference(self) -> Arch:
        """Return the space's published network if there is one, else the candidate with the most blocks."""
        for arch in list_archs().values():
            if arch.space == self.space.name and arch.resolution in self.resolutions:
                return arch.with_classes(self.space.default_classes)
        return max(self._candidates, key=lambda pair: len(pair[1]))[0]

    @cached_property
    def _candidates(self) -> list[tuple[Arch, tuple[str, ...]]]:
        drawn = (self.space.sample(self.rng, self.resolutions) for _ in range(CANDIDATES))
        return [(arch, arch.keys()) for arch in dict.fromkeys(drawn)]

    def _fresh(self) -> list[tuple[Arch, tuple[str, ...]]]:
        return [(arch, keys) for arch, keys in self._candidates if model_id(keys) not in self._known]

    def _add(self, model: PlanModel) -> bool:
        """Add the model; return whether it is new."""
        if model.model_id in self._known:
            return False
        self._known.add(model.model_id)
        self.models.append(model)
        return True

    def _add_arch(self, arch: Arch, role: Role) -> PlanModel:
        model = PlanModel.of(arch, role)
        self._add(model)
        return model

    def _add_removal(self, base: PlanModel, key: str) -> bool:
        """Add the base without a block; return False if that is a model already."""
        blocks = list(base.blocks)
        blocks.remove(key)
        return self._add(PlanModel(model_id(blocks), "", tuple(blocks), "removal", base.model_id, key))

    def _next_base(self, waiting: set[str]) -> PlanModel:
        """Return the candidate with the most keys that are still to be isolated."""
        best, blocks = max(self._fresh(), key=lambda pair: len(waiting & set(pair[1])))
        if not waiting & set(blocks):
            best = self._holding(waiting)
        return self._add_arch(best, "base")

    def _holding(self, waiting: set[str]) -> Arch:
        """Return a draw beyond the candidates, for keys that occur in one network of hundreds."""
        for _ in range(RARE_DRAWS):
            arch = self.space.sample(self.rng, self.resolutions)
            if waiting & set(arch.keys()):
                return arch
        raise UsageError(
            f"no architecture of {self.space.name} found that contains {min(waiting)}", code="space_too_small"
        )

    def add_removals(self, keys: Sequence[str], removals: Removals) -> None:
        """Add removals by greedy cover: each new base has the most blocks still without a removal."""
        if removals == "none":
            return
        base, waiting = self.models[0], {key for key in keys if parse_key(key).removable}
        while True:
            waiting -= {key for key in sorted(waiting & set(base.blocks)) if self._add_removal(base, key)}
            if not waiting or removals == "reference":
                return
            base = self._next_base(waiting)

    def add_swaps(self, keys: Sequence[str], removals: Removals) -> None:
        """Add a pair of similar networks for every block that can't be removed and has an alternative."""
        if removals == "none":
            return
        fixed = {key for key in keys if not parse_key(key).removable}
        if removals == "reference":
            fixed &= set(self.models[0].blocks)
        held = {key for model in self.models if model.arch for key in model.blocks}
        while removals == "all" and fixed - held:
            held |= set(self._next_base(fixed - held).blocks)
        bases = {model.model_id: model for model in self.models if model.arch}
        chosen = choose_swaps(
            self.space, {name: arch_from_json(base.arch) for name, base in bases.items()}, fixed
        )
        for base_id, swap, key in chosen:
            self._add(PlanModel.of(swap.arch, "swap", base_id, key))

    def add_design(self, count: int, expectation: ExpectedCosts) -> None:
        """Add candidates one by one, in order of the information they add to the plan."""
        fresh = self._fresh()
        if count > len(fresh):
            raise self._too_few()
        chosen = choose_design(
            features_of(self.space.block_specs(self.resolutions)),
            expectation,
            measured=[model.blocks for model in self.models],
            candidates=[keys for _, keys in fresh],
            count=count,
        )
        for index in chosen:
            self._add_arch(fresh[index][0], "design")

    def add_heldout(self, count: int) -> None:
        """Add plain random draws, as a search would draw them."""
        for _ in range(count):
            drawn = (self.space.sample(self.rng, self.resolutions) for _ in range(DRAWS))
            arch = next((arch for arch in drawn if model_id(arch.keys()) not in self._known), None)
            if arch is None:
                raise self._too_few()
            self._add_arch(arch, "heldout")

    def _too_few(self) -> UsageError:
        return UsageError(
            f"{self.space.name} has too few architectures for so many models; choose fewer",
            code="space_too_small",
        )


SPARE_DRAWS = 500
"""Random architectures among which replacements are chosen."""

NEXT_DRAWS = 600
"""Random architectures among which further networks are chosen while measuring."""

GIVEN_UP = 2
"""A block of so many failed models, and of none that did not fail, is in no replacement."""


def remove_failed(plan: Plan, failed: Collection[str]) -> Plan:
    """Return the plan without failed models; if the reference failed, the first whole network replaces it.

    A removal or swap whose base failed becomes a design model. `plan.models` may be empty.
    """
    left = [_alone(model) if model.base_id in failed else model for model in plan.models]
    left = [model for model in left if model.model_id not in failed]
    if left and left[0].role != "reference":
        fit = [model for model in left if model.arch and model.role != "heldout"]
        if not fit:
            return replace(plan, models=())
        left.remove(fit[0])
        left.insert(0, replace(fit[0], role="reference", base_id="", removed_key=""))
    return replace(plan, models=tuple(left))


def _alone(model: PlanModel) -> PlanModel:
    return replace(model, role="design", base_id="", removed_key="")


def replacement_models(
    plan: Plan, failed: Collection[str], lately: Sequence[PlanModel], expectation: ExpectedCosts
) -> list[PlanModel]:
    """Return as many new models as whole networks failed recently (`lately`), as far as the space has some.

    Removals and swaps are not replaced: the joint fit estimates their blocks from other models. `failed` are
    the ids of all models that failed, of the plan with its earlier replacements.
    """
    lost = Counter("heldout" if model.role == "heldout" else "design" for model in lately if model.arch)
    avoided = _avoided(plan, failed)
    fresh = [arch for arch in _new_archs(plan, "spares", SPARE_DRAWS) if not avoided & set(arch.keys())]
    heldout, candidates = fresh[: lost["heldout"]], fresh[lost["heldout"] :]
    measured = [model for model in plan.models if model.model_id not in failed]
    designed = _design_models(plan, expectation, measured, candidates, lost["design"])
    return designed + [PlanModel.of(arch, "heldout") for arch in heldout]


SEED_NETWORKS = 4
"""Design networks besides the reference before others are chosen: fewer hardly show which sources fit."""

NETWORKS_PER_STEP = 3
"""Networks chosen at a time: one batch with the reference."""


def seed_design(plan: Plan) -> tuple[Plan, int]:
    """Return the plan with only its first design networks, and how many are left to choose."""
    design = [model for model in plan.models if model.role == "design"]
    later = {model.model_id for model in design[SEED_NETWORKS:]}
    return replace(plan, models=tuple(m for m in plan.models if m.model_id not in later)), len(later)


def next_networks(
    plan: Plan, expectation: ExpectedCosts, failed: Collection[str], count: int
) -> list[PlanModel]:
    """Return new design networks in order of their information; fewer if the space has no more.

    `plan` has all networks so far, including held-out ones and those that `failed`.
    """
    fitted = [m for m in plan.models if m.role != "heldout" and m.model_id not in failed]
    return _design_models(plan, expectation, fitted, _new_archs(plan, "further", NEXT_DRAWS), count)


def _new_archs(plan: Plan, purpose: str, draws: int) -> list[Arch]:
    """Draw architectures that are not in the plan; the same ones for the same plan and purpose."""
    space = get_space(plan.space).with_classes(plan.classes)
    rng = random.Random(f"{plan.digest}:{purpose}")
    known = {model.model_id for model in plan.models}
    drawn = dict.fromkeys(space.sample(rng, plan.resolutions) for _ in range(draws))
    return [arch for arch in drawn if model_id(arch.keys()) not in known]


def _design_models(
    plan: Plan,
    expectation: ExpectedCosts,
    measured: Sequence[PlanModel],
    candidates: Sequence[Arch],
    count: int,
) -> list[PlanModel]:
    chosen = choose_design(
        features_of_plan(plan),
        expectation,
        measured=[model.blocks for model in measured],
        candidates=[arch.keys() for arch in candidates],
        count=min(count, len(candidates)),
    )
    return [PlanModel.of(candidates[index], "design") for index in chosen]


def _avoided(plan: Plan, failed: Collection[str]) -> set[str]:
    """Return blocks of several failed models and of none of the others."""
    able = {key for model in plan.models if model.model_id not in failed for key in model.blocks}
    blamed = Counter(key for model in plan.models if model.model_id in failed for key in set(model.blocks))
    return {key for key, times in blamed.items() if times >= GIVEN_UP} - able
