"""How a supernet is trained, as a value that checkpoints record."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError, model_validator
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.files import read_bytes
from luts.format.schema import Value
from search.spaces import Arch, Space, arch_from_json
from search.spaces.scope import Scope
from search.supernet.recipe.samplers import SamplerName, Sizes
from search.supernet.recipe.terms import AnyTerm, divergence

START_SHARE = 1 / 25
LEAST_SHARE = 1e-4
"""Of the peak, and of the start: torch's defaults."""

LEAST_RATE = 1e-12
"""Least learning rate other than 0; far smaller ones become 0 where a schedule divides by them."""


def one_cycle(
    step: int, steps: int, *, rising: float, peak: float, start: float = 0.0, least: float = 0.0
) -> float:
    """Return the learning rate of a step, counted from 0, of torch's OneCycleLR with constant momentum.

    Args:
        step: Below `steps`.
        steps: Of the whole run.
        rising: Fraction of the run until the peak; more than all of it counts as all, up to one step as none, by
            which torch would divide.
        peak: Largest learning rate.
        start: That of the first step; 0 for `START_SHARE` of the peak.
        least: That of the last; 0 for `LEAST_SHARE` of the start.
    """
    start = min(start or START_SHARE * peak, peak)
    least = least or LEAST_SHARE * start
    group = {"params": [torch.zeros(1)], "initial_lr": start, "max_lr": peak, "min_lr": least}
    schedule = OneCycleLR(
        torch.optim.SGD([group], lr=start),
        peak,
        total_steps=steps,
        pct_start=min(rising, 1.0) if rising * steps > 1 else 0.0,
        cycle_momentum=False,
        div_factor=peak / start,
        final_div_factor=start / least,
        last_epoch=step - 1,
    )
    return float(schedule.get_last_lr()[0])


class Distillation(Value):
    """How a teacher enters the loss; without one only the labels do.

    Attributes:
        kind: `soft` compares distributions (equation 3), `hard` takes the teacher's decision as a label
            (equation 4), `none` takes no teacher.
        alpha: Fraction of the teacher's term in the loss.
        tau: Temperature of `soft`.
        terms: The whole loss as a weighted sum, with `kind` "terms", which is the default where there are any;
            absent from what is written without them, so that older recipes keep their digests.
    """

    kind: Literal["none", "soft", "hard", "terms"] = "hard"
    alpha: float = Field(ge=0, le=1, default=0.5)
    tau: float = Field(gt=0, le=100, default=1.0)
    terms: tuple[AnyTerm, ...] = Field(default=(), max_length=32, exclude_if=lambda terms: not terms)

    @model_validator(mode="before")
    @classmethod
    def _kind_of_terms(cls, values: Any) -> Any:
        return {"kind": "terms", **values} if isinstance(values, dict) and values.get("terms") else values

    @model_validator(mode="after")
    def _terms_fit(self) -> Distillation:
        if (self.kind == "terms") != bool(self.terms):
            raise ValueError('kind = "terms" and a list of terms need each other')
        if self.terms and not sum(term.weight for term in self.terms if term.kind != "in-place"):
            raise ValueError("the weights of the terms (other than in-place) sum to nothing")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out `terms` where there are none, as before there were any."""
        return [(name, value) for name, value in super().__repr_args__() if name != "terms" or value]

    def loss(
        self, logits: Tensor, target: Tensor, teacher_logits: Tensor | None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: Z_s, (B, classes).
            target: Labels (B,), or class probabilities (B, classes) of mixed images.
            teacher_logits: Z_t, (B, classes), for the same images; None without a teacher.
            label_smoothing: Of the labels' term alone.
        """
        own = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        if teacher_logits is None or self.kind == "none":
            return own
        if self.kind == "hard":
            from_teacher = F.cross_entropy(logits, teacher_logits.argmax(1))
        else:
            from_teacher = self.tau**2 * divergence(logits / self.tau, teacher_logits / self.tau)
        return (1 - self.alpha) * own + self.alpha * from_teacher


def in_place_loss(logits: Tensor, largest_logits: Tensor) -> Tensor:
    """Loss of a smaller subnet of a sandwich: cross-entropy with the largest one's soft labels alone.

    BigNAS (Yu et al. 2020), section 3.1; no gradient reaches the largest.
    """
    return F.cross_entropy(logits, largest_logits.detach().softmax(1))


PrecisionName = Literal["fp32", "bf16", "fp16"]

_Decay = Annotated[float, Field(ge=0, lt=1)]
_Weight = Annotated[float, Field(gt=0, le=1e6)]
_Probability = Annotated[float, Field(ge=0, le=1)]

IMAGE_FIELDS = (
    "batch_size",
    "micro_batches",
    "multi_scale",
    "resolutions",
    "augmentation_epochs",
    "augmentation",
    "held_out",
    "seed",
)
"""Fields of a recipe that decide the images of a step: stored teacher logits are valid for these values alone."""


class Augmentation(Value):
    """Augmentation of training images, in this order.

    Attributes:
        crop: `pad`: shifted by up to an eighth of the side; `resized`: a random area and aspect ratio
            of the whole image (RandomResizedCrop of Inception); `none`: the centre square.
        flip: Mirror every other image, where the source allows it.
        rand_augment: RandAugment in timm's notation, such as `rand-m9-mstd0.5-inc1`, or timm's name of a policy of
            AutoAugment (`original`: Cubuk et al. 2019 for ImageNet, `v0`: of TPU training); empty for none.
        erase: Probability of random erasing with noise (Zhong et al. 2020).
        mixup, cutmix: Their alpha, 0 for none; where both are on, each batch gets one of them.
        switch: Probability of CutMix where both are on.
    """

    crop: Literal["pad", "resized", "none"] = "pad"
    flip: bool = True
    rand_augment: str = Field(default="", pattern=r"^(rand(-[a-z]+[0-9.]*)+|original|v0|3a)?$", max_length=64)
    erase: _Probability = 0.0
    mixup: float = Field(ge=0, le=10, default=0.0)
    cutmix: float = Field(ge=0, le=10, default=0.0)
    switch: _Probability = 0.5

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, so that it must have an even number of them."""
        return self.mixup > 0 or self.cutmix > 0


class Recipe(Value):
    """Hyper-parameters of one training run: all that decides its result but images, teacher and space.

    Attributes:
        batch_size: Images of an optimizer step, in all processes together.
        micro_batches: Parts of a batch that go through the network one after another or on several
            processes; BN normalises over one of them, so that the processes don't decide the result.
        multi_scale: MobileViT's multi-scale sampler (Mehta & Rastegari 2022, section 3.3): smaller
            resolutions come in larger batches of about as many pixels; `batch_size` is that of the largest. True
            has each resolution equally often in every epoch, "drawn" draws one at each step as the paper does.
        resolutions: Input resolutions to sample from, or "space" for all of the space; empty means the
            space's default alone.
        arch: JSON of the one network to train; None to train the space.
        freeze: First stages, including the stem, whose weights are frozen; BN normalises by the batch there too.
        stage_counts: How many stages trained subnets have; empty for all that the space has.
        stage_weights: How often each of these is drawn, in proportion; empty for equally often.
        params_range: Least and most parameters of trained subnets, for several supernets of one space.
        params_weights: How often `balanced` draws each of so many equally wide ranges of parameters, in
            proportion; empty for equally often from `samplers.STRATA` of them.
        optimizer: `adamw` on the sampled subnets' slices alone, or `sgd`, torch's on whole parameters.
        momentum, nesterov: Of `sgd`.
        schedule: `cosine` after linear warm-up, or `one-cycle`, torch's OneCycleLR with constant momentum.
        learning_rate: Peak of the schedule, which ends at `min_learning_rate`.
        warmup_epochs: Epochs of growth to the peak, linear before a cosine.
        warmup_learning_rate: Where that growth begins, before a cosine one step before the first; of one cycle 0
            stands for a 25th of the peak, and as end for a 10,000th of the beginning, as in torch.
        drop_path: Fraction of images for which each residual of a subnet's last removable block is left out, less
            for those before it (`search.supernet.model.supernet`); of a sandwich, the largest subnet alone
            (BigNAS, section 3.1).
        clip_norm: Largest global norm of the gradients; 0 for no limit.
        agc: Clip factor of adaptive gradient clipping (Brock et al. 2021), before that; 0 for none.
        ema_decay: Decay of the moving average of the weights, which is then what subnets inherit; 0 for none.
        precision: Of forward and backward pass; weights stay fp32, and fp16 has a loss scaler.
        distillation: How a teacher's outputs enter the loss; without effect if there is no teacher.
        augmentation_epochs: Epochs after which batches and their augmentation come again, in another order,
            so that stored teacher labels serve again; 0 for never.
        sampler: Which subnets a step trains; with `exits` each number of stages has a head of its own.
        sandwich_randoms: Random subnets of a `sandwich`, next to the largest and the smallest.
        held_out: Fraction of each class held out of training for the search, and as much again for validation
            where the source has no validation set.
        save_epochs: Epochs between checkpoints; one is always written at the end.
    """

    name: str = Field(max_length=64)
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=65_536)
    micro_batches: int = Field(ge=1, le=4096, default=1)
    multi_scale: bool | Literal["drawn"] = False
    resolutions: tuple[int, ...] | Literal["space"] = ()
    arch: str | None = Field(max_length=65_536, default=None)
    freeze: int = Field(ge=0, le=64, default=0)
    stage_counts: tuple[int, ...] = Field(default=(), max_length=64)
    stage_weights: tuple[_Weight, ...] = ()
    params_range: tuple[int, int] | None = None
    params_weights: tuple[_Weight, ...] = Field(default=(), max_length=64)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: _Decay = 0.9
    nesterov: bool = False
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    learning_rate: float = Field(gt=0, le=1)
    min_learning_rate: float = Field(ge=0, le=1, default=0.0)
    warmup_epochs: float = Field(ge=0, default=5)
    warmup_learning_rate: float = Field(ge=0, le=1, default=0.0)
    weight_decay: float = Field(ge=0, lt=1, default=0.05)
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    label_smoothing: float = Field(ge=0, lt=1, default=0.1)
    drop_path: float = Field(ge=0, lt=1, default=0.0)
    clip_norm: float = Field(ge=0, default=5.0)
    agc: float = Field(ge=0, le=1, default=0.0)
    ema_decay: _Decay = 0.0
    precision: PrecisionName = "fp32"
    channels_last: bool = False
    distillation: Distillation = Distillation()
    sampler: SamplerName = "uniform"
    sandwich_randoms: int = Field(ge=0, le=64, default=2)
    augmentation_epochs: int = Field(ge=0, le=10_000, default=0)
    augmentation: Augmentation = Augmentation()
    held_out: float = Field(gt=0, le=0.4, default=0.1)
    save_epochs: int = Field(ge=1, default=1)
    seed: int = Field(ge=0, lt=2**32, default=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        share = self.batch_size // self.micro_batches
        if share * self.micro_batches != self.batch_size or share < 2:
            raise ValueError(
                f"{self.batch_size} images do not make {self.micro_batches} parts of two or more"
            )
        rates = (self.learning_rate, self.min_learning_rate, self.warmup_learning_rate)
        if any(0 < rate < LEAST_RATE for rate in rates):
            raise ValueError(f"a learning rate below {LEAST_RATE} changes no weight; give a larger one")
        if self.augmentation.mixes and share % 2:
            raise ValueError(f"Mixup and CutMix need an even number of images a part, not {share}")
        if self.stage_weights and len(self.stage_weights) != len(self.stage_counts):
            raise ValueError(
                f"{len(self.stage_weights)} stage_weights for {len(self.stage_counts)} stage_counts; give one each"
            )
        if len(set(self.stage_counts)) != len(self.stage_counts):
            raise ValueError("stage_counts name a number twice")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum")
        if self.params_weights and self.sampler != "balanced":
            raise ValueError('params_weights are for sampler = "balanced"')
        if self.sampler == "exits" and (self.stage_weights or self.params_range):
            raise ValueError(
                'sampler = "exits" trains all exits in each step; leave stage_weights, params_range out'
            )
        if self.params_range and self.params_range[0] > self.params_range[1]:
            raise ValueError("params_range: the least parameters come first")
        return self

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step from 0: linear warm-up, then half a cosine down to the least; or one cycle."""
        if self.schedule == "one-cycle":
            return one_cycle(
                step,
                self.epochs * steps_per_epoch,
                rising=self.warmup_epochs / self.epochs,
                peak=self.learning_rate,
                start=self.warmup_learning_rate,
                least=self.min_learning_rate,
            )
        total, warmup = self.epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch
        if step < warmup:
            start = min(self.warmup_learning_rate, self.learning_rate)
            return start + (self.learning_rate - start) * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1.0, total - warmup)
        least = min(self.min_learning_rate, self.learning_rate)
        return least + (self.learning_rate - least) * 0.5 * (1 + math.cos(math.pi * progress))


RECIPES = Path(__file__).with_name("recipes")

MAX_RECIPE_BYTES = 64 * 1024
"""Far more than all fields and their reasons need."""

MAX_BASES = 4
"""Longest chain of `extends`, so that a circle of them ends."""


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def get_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by name, or from a file `….toml`; `extends = "NAME"` is the base of all that it leaves out.

    Raises UsageError for an unknown name, InvalidArtifactError for a file that is not a recipe.
    """
    path = _path(name_or_path)
    values = _values(path, MAX_BASES) | {"name": path.stem}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: {first_problem(error)}; correct the recipe", code="invalid_recipe"
        ) from error


def changed(recipe: Recipe, options: Mapping[str, object], distillation: Mapping[str, object]) -> Recipe:
    """Return a recipe with the values of `options`, and of `distillation` for that part, that are not None.

    Raises UsageError for a value that the field can't have, or that does not go with the others.
    """
    values = recipe.model_dump()
    given = {name: value for name, value in distillation.items() if value is not None}
    if given.keys() & {"alpha", "tau"} and "kind" not in given and recipe.distillation.terms:
        raise UsageError(
            f"recipe {recipe.name} has terms, on which alpha and tau have no effect; change its terms, or add "
            "--distill soft or hard",
            code="option_does_not_apply",
        )
    if "kind" in given:
        values["distillation"].pop("terms", None)
    values["distillation"] |= given
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"recipe {recipe.name}: {first_problem(error)}; choose another value", code="invalid_recipe"
        ) from error


def _path(name_or_path: str) -> Path:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in recipe_names():
        raise UsageError(
            f"unknown recipe {name_or_path!r}; known: {', '.join(recipe_names())}, or a file FILE.toml",
            code="unknown_recipe",
        )
    return RECIPES / f"{name_or_path}.toml"


def _values(path: Path, bases: int) -> dict[str, Any]:
    """Return a file's fields over those of the recipe that it extends; tables are merged field by field."""
    data = read_bytes(path, MAX_RECIPE_BYTES, "give a recipe")
    try:
        own = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(
            f"{path}: not TOML ({error}); correct the recipe", code="invalid_recipe"
        ) from error
    base = own.pop("extends", None)
    if base is None:
        return own
    if not isinstance(base, str) or bases == 0:
        raise InvalidArtifactError(
            f"{path}: extends: not a recipe, or too many in a row; name one recipe", code="invalid_recipe"
        )
    merged = _values(_path(base), bases - 1)
    for name, value in own.items():
        table = merged.get(name)
        merged[name] = table | value if isinstance(table, dict) and isinstance(value, dict) else value
    return merged


def resolutions_of(recipe: Recipe, space: Space) -> tuple[int, ...]:
    """Return the recipe's resolutions in a space; raises UsageError for one that the space does not have."""
    if recipe.resolutions == "space":
        return space.resolutions
    foreign = set(recipe.resolutions) - set(space.resolutions)
    if foreign:
        raise UsageError(
            f"{space.name} has no resolution {sorted(foreign)}; known: {space.resolutions}",
            code="unknown_resolution",
        )
    only = only_arch(recipe, space)
    return recipe.resolutions or (space.default_resolution if only is None else only.resolution,)


def part_of(recipe: Recipe, space: Space) -> Space:
    """Return the space with the recipe's numbers of stages alone; raises UsageError for one that it lacks."""
    foreign = set(recipe.stage_counts) - set(space.stage_counts)
    if foreign:
        raise UsageError(
            f"{space.name} has no networks of {sorted(foreign)[0]} stages; stage_counts may hold "
            f"{', '.join(map(str, space.stage_counts))}",
            code="unknown_stage_count",
        )
    return replace(space, stage_counts=recipe.stage_counts) if recipe.stage_counts else space


def scope_of(recipe: Recipe, space: Space) -> Scope:
    """Return the part of a space, with its number of classes, that the recipe trains; UsageError for none."""
    sides, only = tuple(sorted(resolutions_of(recipe, space))), only_arch(recipe, space)
    if only is not None:
        return Scope(stage_counts=(len(only.stages),), resolutions=sides, params=(only.params(),) * 2)
    counts = Sizes(part_of(recipe, space), recipe.params_range).stage_counts
    return Scope(stage_counts=tuple(sorted(counts)), resolutions=sides, params=recipe.params_range)


def only_arch(recipe: Recipe, space: Space) -> Arch | None:
    """Return the one network that the recipe trains, if any, with the space's classes; raises UsageError."""
    if recipe.arch is None:
        return None
    arch = arch_from_json(recipe.arch).with_classes(space.default_classes)
    space.check(arch)
    return arch


def check_trained(arch: Arch, recipe: Recipe, space: Space) -> None:
    """`UsageError` where the recipe trained one network alone and this is another."""
    only = only_arch(recipe, space)
    if only is not None and arch not in {
        only.with_resolution(side) for side in resolutions_of(recipe, space)
    }:
        raise UsageError(
            f"these weights are of one network that was trained alone, not of a supernet of {space.name}; "
            f"evaluate that one ({only.to_json()}), or train the space without --arch",
            code="untrained_architecture",
        )
