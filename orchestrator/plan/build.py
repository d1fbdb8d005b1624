"""Which whole models to build and measure so that every block of a space gets its latency.

All but the held-out ones are rows of one joint fit:
- removals (AutoViT, section 3.3.2): bases, and each base without one of its blocks;
- swaps, for blocks whose removal breaks shapes: neighbours of a base (`swaps.py`);
- design: architectures chosen one by one where they take most off the error of predictions (`design.py`), so that
  the first n of them are a good plan of n;
- held out: random architectures that are never fitted and only tell the error of predictions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cached_property

from luts.estimate.expected import TYPICAL, Expectation
from luts.format.errors import UsageError
from orchestrator.plan.design import choose_design
from orchestrator.plan.features import features_of
from orchestrator.plan.plan import Plan, PlanModel, Removals, Role, model_id
from orchestrator.plan.swaps import choose_swaps
from search.blocks import parse_key
from search.spaces import Arch, Space, list_archs
from search.spaces.registry import arch_from_json

CANDIDATES = 1500
"""Random architectures among which bases and design models are picked."""

DRAWS = 400
"""Tries of drawing an architecture that is not in the plan yet."""

RARE_DRAWS = 100_000
"""Tries of drawing one that holds a block that no candidate has: each stands in one network of hundreds."""

KEYS_PER_DESIGN = 3
"""Beside removals and swaps, one design model for so many block keys by default."""

HELDOUT_SHARE = 0.2
MIN_HELDOUT = 10
"""Held out by default: this share of all whole models, and no fewer than give a 90 % conformal interval (nine),
with one to spare."""


def make_plan(
    space: Space,
    *,
    resolutions: tuple[int, ...] | None = None,
    seed: int = 0,
    design: int | None = None,
    heldout: int | None = None,
    removals: Removals = "all",
    expectation: Expectation = TYPICAL,
) -> Plan:
    """Choose the models of a profile; the same arguments give the same plan.

    Args:
        space: What is profiled.
        resolutions: Input resolutions to cover; the space's default one if not given.
        seed: Of every random choice.
        design: Models of the design; by default one for every three block keys.
        heldout: Models held out; by default a fifth of all, at least ten.
        removals: `all` removes or swaps every block of the space once, `reference` those of the reference.
        expectation: What blocks are expected to cost; the design leans on it a little.

    Raises:
        UsageError: a resolution is not one of the space's, or the space has too few architectures.
    """
    resolutions = resolutions or (space.default_resolution,)
    foreign = sorted(set(resolutions) - set(space.resolutions))
    if foreign:
        raise UsageError(f"{space.name} has no resolution {foreign[0]}; it has {list(space.resolutions)}")
    rng = random.Random(f"{space.digest}:{seed}")
    keys = [spec.key for spec in space.block_specs(resolutions)]
    builder = _Builder(space, resolutions, rng)
    builder.add_removals(keys, removals)
    builder.add_swaps(keys, removals)
    builder.add_design(math.ceil(len(keys) / KEYS_PER_DESIGN) if design is None else design, expectation)
    builder.add_heldout(heldout_count(len(builder.models)) if heldout is None else heldout)
    return Plan(space.name, space.digest, space.default_classes, resolutions, seed, tuple(builder.models))


def heldout_count(fitted: int) -> int:
    """Models to hold out beside so many fitted ones."""
    return max(round(fitted * HELDOUT_SHARE / (1 - HELDOUT_SHARE)), MIN_HELDOUT)


class _Builder:
    """Grows the list of models; no model is listed twice."""

    def __init__(self, space: Space, resolutions: tuple[int, ...], rng: random.Random):
        self.space, self.resolutions, self.rng = space, resolutions, rng
        self.models: list[PlanModel] = []
        self._known: set[str] = set()
        self._add_arch(self._reference(), "reference")

    def _reference(self) -> Arch:
        """The space's published network where there is one, else the candidate with the most blocks."""
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
        """Whether the model is new."""
        if model.model_id in self._known:
            return False
        self._known.add(model.model_id)
        self.models.append(model)
        return True

    def _add_arch(self, arch: Arch, role: Role) -> PlanModel:
        blocks = arch.keys()
        model = PlanModel(model_id(blocks), arch.to_json(), blocks, role)
        self._add(model)
        return model

    def _add_removal(self, base: PlanModel, key: str) -> bool:
        """False where the base without the block is a model already; another base has to show the block then."""
        blocks = list(base.blocks)
        blocks.remove(key)
        return self._add(PlanModel(model_id(blocks), "", tuple(blocks), "removal", base.model_id, key))

    def _next_base(self, waiting: set[str]) -> PlanModel:
        """The candidate that holds the most keys that wait to be shown."""
        best, blocks = max(self._fresh(), key=lambda pair: len(waiting & set(pair[1])))
        if not waiting & set(blocks):
            best = self._holding(waiting)
        return self._add_arch(best, "base")

    def _holding(self, waiting: set[str]) -> Arch:
        """A draw beyond the candidates, for keys that stand in one network of hundreds."""
        for _ in range(RARE_DRAWS):
            arch = self.space.sample(self.rng, self.resolutions)
            if waiting & set(arch.keys()):
                return arch
        raise UsageError(f"no architecture of {self.space.name} found that holds {min(waiting)}")

    def add_removals(self, keys: Sequence[str], removals: Removals) -> None:
        """Greedy cover: each new base holds the most blocks still without a removal that a draw offers."""
        if removals == "none":
            return
        base, waiting = self.models[0], {key for key in keys if parse_key(key).removable}
        while True:
            waiting -= {key for key in sorted(waiting & set(base.blocks)) if self._add_removal(base, key)}
            if not waiting or removals == "reference":
                return
            base = self._next_base(waiting)

    def add_swaps(self, keys: Sequence[str], removals: Removals) -> None:
        """Every block that can't be removed, and has an alternative, in a pair of networks that differ least."""
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
            blocks = swap.arch.keys()
            self._add(PlanModel(model_id(blocks), swap.arch.to_json(), blocks, "swap", base_id, key))

    def add_design(self, count: int, expectation: Expectation) -> None:
        """Add candidates one by one, in order of what they tell beyond all that is in the plan."""
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
        """Plain random draws, as a search would see them."""
        for _ in range(count):
            drawn = (self.space.sample(self.rng, self.resolutions) for _ in range(DRAWS))
            arch = next((arch for arch in drawn if model_id(arch.keys()) not in self._known), None)
            if arch is None:
                raise self._too_few()
            self._add_arch(arch, "heldout")

    def _too_few(self) -> UsageError:
        return UsageError(f"{self.space.name} has too few architectures for so many models; ask for fewer")
