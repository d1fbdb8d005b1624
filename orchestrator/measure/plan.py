"""Which whole models to build and measure so that every block of a space gets its latency.

Three groups, all of them rows of one joint fit but the last:
- removals (AutoViT, section 3.3.2): bases, and each base without one of its blocks;
- design: random architectures chosen one by one where the information matrix knows least (D-optimal, greedy);
- held out: random architectures that are never fitted and only tell the error of predictions.
A block whose removal breaks shapes appears in the design in the place of its alternatives: a swap.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from luts.errors import UsageError
from search.blocks import parse_key
from search.spaces import Arch, Space, list_archs

Role = Literal["reference", "base", "removal", "design", "heldout"]
Removals = Literal["all", "reference", "none"]

CANDIDATES = 400
"""Random architectures among which each base and each design model is picked."""

RIDGE = 0.1
"""Prior information per block key in the greedy design: an unseen key has a leverage of count^2 / RIDGE."""

HELDOUT_SHARE = 0.2
MIN_HELDOUT = 10
"""Held out by default: this share of all whole models, and no fewer than give a 90 % conformal interval (nine),
with one to spare."""


@dataclass(frozen=True)
class PlanModel:
    """One whole model: an architecture (`arch` is its JSON), or a base without one block (`arch` is "")."""

    model_id: str
    arch: str
    blocks: tuple[str, ...]
    role: Role
    base_id: str = ""
    removed_key: str = ""


@dataclass(frozen=True)
class Plan:
    """The models of one profile, the reference first."""

    space: str
    space_digest: str
    classes: int
    resolutions: tuple[int, ...]
    seed: int
    models: tuple[PlanModel, ...]

    @property
    def reference(self) -> PlanModel:
        """The model that every batch holds twice."""
        return self.models[0]

    @property
    def digest(self) -> str:
        """sha256 of everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def covered_keys(self) -> set[str]:
        """Block keys that some fitted model holds."""
        return {key for model in self.models if model.role != "heldout" for key in model.blocks}


def model_id(blocks: Sequence[str]) -> str:
    """Name of a model: equal blocks, equal name."""
    return hashlib.sha256(" ".join(blocks).encode()).hexdigest()[:12]


def make_plan(
    space: Space,
    *,
    resolutions: tuple[int, ...] | None = None,
    seed: int = 0,
    design: int | None = None,
    heldout: int | None = None,
    removals: Removals = "all",
) -> Plan:
    """Choose the models of a profile; the same arguments give the same plan.

    Args:
        space: What is profiled.
        resolutions: Input resolutions to cover; the space's default one if not given.
        seed: Of every random choice.
        design: Random models of the design; by default one for every five block keys.
        heldout: Models held out; by default a fifth of all, at least ten.
        removals: `all` removes every removable block of the space once, `reference` those of the reference.

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
    builder.add_design(keys, math.ceil(len(keys) / 5) if design is None else design)
    share = round(len(builder.models) * HELDOUT_SHARE / (1 - HELDOUT_SHARE))
    builder.add_heldout(max(share, MIN_HELDOUT) if heldout is None else heldout)
    return Plan(space.name, space.digest, space.default_classes, resolutions, seed, tuple(builder.models))


class _Builder:
    """Grows the list of models; no model is listed twice."""

    def __init__(self, space: Space, resolutions: tuple[int, ...], rng: random.Random):
        self.space, self.resolutions, self.rng = space, resolutions, rng
        self.models: list[PlanModel] = []
        self._known: set[str] = set()
        self._add_arch(self._reference(), "reference")

    def _reference(self) -> Arch:
        """The space's published network where there is one, else the first draw with the most blocks."""
        for arch in list_archs().values():
            if arch.space == self.space.name and arch.resolution in self.resolutions:
                return arch.with_classes(self.space.default_classes)
        return max(self._candidates(), key=lambda arch: len(arch.keys()))

    def _candidates(self) -> list[Arch]:
        return [self.space.sample(self.rng, self.resolutions) for _ in range(CANDIDATES)]

    def _fresh_candidates(self) -> list[tuple[Arch, tuple[str, ...]]]:
        named = [(arch, arch.keys()) for arch in dict.fromkeys(self._candidates())]
        fresh = [(arch, keys) for arch, keys in named if model_id(keys) not in self._known]
        if not fresh:
            raise UsageError(f"{self.space.name} has too few architectures for so many models; ask for fewer")
        return fresh

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

    def add_removals(self, keys: Sequence[str], removals: Removals) -> None:
        """Greedy cover: each new base holds the most blocks still without a removal that a draw offers."""
        if removals == "none":
            return
        removable = {key for key in keys if parse_key(key).removable}
        base, waiting = self.models[0], set(removable)
        while True:
            waiting -= {key for key in sorted(waiting & set(base.blocks)) if self._add_removal(base, key)}
            if not waiting or removals == "reference":
                return
            best, blocks = max(self._fresh_candidates(), key=lambda pair: len(waiting & set(pair[1])))
            if not waiting & set(blocks):
                raise UsageError(f"no architecture of {self.space.name} found that holds {min(waiting)}")
            base = self._add_arch(best, "base")

    def add_design(self, keys: Sequence[str], count: int) -> None:
        """Add models one by one, each where x' M^-1 x is largest among candidates (M: information so far)."""
        index = {key: i for i, key in enumerate(keys)}

        def row(blocks: Sequence[str]) -> np.ndarray:
            x = np.zeros(len(keys) + 1)
            x[-1] = 1.0
            for key in blocks:
                x[index[key]] += 1.0
            return x

        covariance = np.eye(len(keys) + 1) / RIDGE
        for model in self.models:
            covariance = _add_information(covariance, row(model.blocks))
        for _ in range(count):
            fresh = self._fresh_candidates()
            rows = np.stack([row(blocks) for _, blocks in fresh])
            leverage = np.einsum("ij,jk,ik->i", rows, covariance, rows)
            best = int(np.argmax(leverage))
            self._add_arch(fresh[best][0], "design")
            covariance = _add_information(covariance, rows[best])

    def add_heldout(self, count: int) -> None:
        """Plain random draws, as a search would see them."""
        for _ in range(count):
            self._add_arch(self._fresh_candidates()[0][0], "heldout")


def _add_information(covariance: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(M + x x')^-1 from M^-1 (Sherman and Morrison)."""
    product = covariance @ row
    return covariance - np.outer(product, product) / (1.0 + float(row @ product))
