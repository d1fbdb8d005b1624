"""How a supernet is trained, as a value that checkpoints record."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search.supernet.recipe.distill import Distillation
from search.supernet.recipe.one_cycle import one_cycle
from search.supernet.recipe.samplers import SamplerName

PrecisionName = Literal["fp32", "bf16", "fp16"]

_Decay = Annotated[float, Field(ge=0, lt=1)]
_Weight = Annotated[float, Field(gt=0, le=1e6)]
_Probability = Annotated[float, Field(ge=0, le=1)]

NOT_OF_IMAGES = (
    "name",
    "epochs",
    "learning_rate",
    "min_learning_rate",
    "warmup_epochs",
    "warmup_learning_rate",
    "weight_decay",
    "betas",
    "label_smoothing",
    "drop_path",
    "clip_norm",
    "ema_decay",
    "precision",
    "channels_last",
    "distillation",
    "sampler",
    "sandwich_randoms",
    "stage_counts",
    "stage_weights",
    "params_range",
    "params_weights",
    "arch",
    "freeze",
    "optimizer",
    "momentum",
    "nesterov",
    "schedule",
    "agc",
    "save_epochs",
)
"""Fields that change no image of a step: teacher logits hold whatever they are."""


class Augmentation(BaseModel):
    """What happens to a training image on its way into a batch, in this order.

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

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class Recipe(BaseModel):
    """Hyper-parameters of one training run: all that decides its result but images, teacher and space.

    Attributes:
        batch_size: Images of an optimizer step, whatever number of processes share them.
        micro_batches: Parts of a batch that go through the network one after another or on several
            processes; BN normalises over one of them, so that the processes don't decide the result.
        multi_scale: MobileViT's multi-scale sampler (Mehta & Rastegari 2022, section 3.3): smaller
            resolutions come in larger batches of about as many pixels; `batch_size` is that of the largest. True
            has each resolution equally often in every epoch, "drawn" draws one at each step as the paper does.
        resolutions: Input resolutions to sample from, or "space" for all of the space; empty means the
            space's default alone.
        arch: JSON of the one network that is trained, for what it reaches alone; None to train the space.
        freeze: First stages, the stem among them, whose weights stand still; BN normalises by the batch there too.
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
        drop_path: Share of images for which each residual of a subnet's last removable block is left out, less
            for those before it (`search.supernet.model.drop_path`); of a sandwich, the largest subnet alone
            (BigNAS, section 3.1).
        clip_norm: Largest global norm of the gradients; 0 for no bound.
        agc: Clip factor of adaptive gradient clipping (Brock et al. 2021), before that; 0 for none.
        ema_decay: Decay of the moving average of the weights, which is then what subnets inherit; 0 for none.
        precision: Of forward and backward pass; weights stay fp32, and fp16 has a loss scaler.
        distillation: How a teacher's decisions enter the loss; it counts only where a teacher is given.
        augmentation_epochs: Epochs after which batches and their augmentation come again, in another order,
            so that stored teacher labels serve again; 0 for never.
        sampler: Which subnets a step trains.
        sandwich_randoms: Subnets of a `sandwich` besides the largest and the smallest.
        held_out: Share of each class kept from training for the search, and as much again for validation
            where the source has no validation set.
        save_epochs: Epochs between checkpoints; one is always written at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
