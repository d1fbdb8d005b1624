"""Weighted terms of a distillation loss: their fields in a recipe, and the formulas of their papers.

`logits` are those of the student, (B, classes); a loss is the mean over the images of a batch, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from luts.format.schema import Value

EPSILON = 1e-7
"""Added to divisors that vanish for equal logits, as in Sun et al.'s code (`normalize` of their KD.py)."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What terms compare for a micro-batch and one subnet; None or empty where no term of the recipe needs it.

    Attributes:
        labels: (B,), or class probabilities (B, classes) of mixed images; smoothed by `smoothing`.
        epoch: Epochs done, with a fraction, of `epochs`.
        features: Maps at the ends of stages, (B, channels, H, W), the last one last.
        qkv: Queries, keys and values of the last attention, (B, 3 * dim, H, W).
        previous_logits: The same subnet's with the weights of the last epoch's end; None in the first epoch.
        largest_logits: The largest subnet's; None for itself.
        learned: Learned tensors of the term by name.
    """

    logits: Tensor
    labels: Tensor
    smoothing: float = 0.0
    epoch: float = 0.0
    epochs: float = 1.0
    teacher_logits: Tensor | None = None
    features: Sequence[Tensor] = ()
    teacher_features: Sequence[Tensor] = ()
    qkv: Tensor | None = None
    teacher_qkv: Tensor | None = None
    previous_logits: Tensor | None = None
    largest_logits: Tensor | None = None
    learned: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def classes(self) -> Tensor:
        """The most probable class of each label, (B,)."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    @property
    def of_teacher(self) -> Tensor:
        """The teacher's logits, which `Objective` makes sure of."""
        assert self.teacher_logits is not None
        return self.teacher_logits


def divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of a batch.

    AutoViT's equation 3 writes the student first; its text and its source (Hinton et al. 2015) mean the divergence
    of the student from the teacher, as does DeiT's code.
    """
    student, teacher = logits.log_softmax(1), teacher_logits.log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def divergences(logits: Tensor, teacher_logits: Tensor, *, reverse: bool = False) -> Tensor:
    """KL(teacher || student) of each image, (B, 1); `reverse` swaps the two."""
    student, teacher = logits.log_softmax(1), teacher_logits.log_softmax(1)
    if reverse:
        student, teacher = teacher, student
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1, keepdim=True)


def standardised(logits: Tensor) -> Tensor:
    """Z-score of each image's logits, with the sample deviation (Sun et al. 2024)."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPSILON)


def pearson_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean over rows of 1 - Pearson's correlation (DIST, Huang et al. 2022)."""
    one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    return 1 - F.cosine_similarity(one, other, eps=1e-8).mean()


def without_target(logits: Tensor, target: Tensor) -> Tensor:
    """Logits of all classes but each image's own, (B, classes - 1)."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], value=False)
    return logits[others].view(len(logits), -1)


def bounded_temperature(prediction: Tensor) -> Tensor:
    """Temperature 1 + 20 sigmoid(prediction), the range of CTKD (Li et al. 2023)."""
    return 1 + 20 * prediction.sigmoid()


def learned_temperature(prediction: Tensor, epoch: float, ramp_epochs: float) -> Tensor:
    """Bounded temperature whose gradient is reversed (CTKD).

    The reversal grows from 0 to 1 over `ramp_epochs` as half a cosine, so that the loss becomes harder.
    """
    strength = 0.5 * (1 - math.cos(math.pi * min(1.0, epoch / ramp_epochs)))
    return bounded_temperature((1 + strength) * prediction.detach() - strength * prediction)


def predicted_temperature(
    logits: Tensor, teacher_logits: Tensor, hidden: Tensor, output: Tensor, bias: Tensor
) -> Tensor:
    """Prediction for each image, (B, 1), of CTKD's MLP of two layers from both networks' logits.

    The student does not learn through its logits here. `hidden` is (width, 2 * classes + 1), its last column a
    bias; `output` is (width, 1).
    """
    inputs = torch.cat((logits.detach(), teacher_logits, torch.ones_like(logits[:, :1])), 1)
    return (inputs @ hidden.T).relu() @ output + bias


def on_common_grid(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Average maps (B, channels, H, W) down to the smaller height and width of the two."""
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


def similarity_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity-preserving (Tung & Mori 2019): which images of a batch are alike, row by row."""
    flat = [x.flatten(1) for x in (features, teacher_features)]
    student, teacher = (F.normalize(x @ x.T, dim=1) for x in flat)
    return (student - teacher).square().mean()


def attention_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017): where activations are large; its beta / 2 is the weight."""
    maps = on_common_grid(*(x.square().sum(1, keepdim=True) for x in (features, teacher_features)))
    student, teacher = (F.normalize(x.flatten(1), dim=1) for x in maps)
    distances: Tensor = torch.linalg.vector_norm(student - teacher, dim=1)
    return distances.mean()


def features_loss(features: Tensor, teacher_features: Tensor, projector: Tensor) -> Tensor:
    """FitNets (Romero et al. 2015) with a 1x1 projector (C_teacher, C_student); a mean."""
    student, teacher = on_common_grid(features, teacher_features)
    return 0.5 * F.mse_loss(F.conv2d(student, projector[:, :, None, None]), teacher)


MAX_TEACHERS = 8
"""More do not fit next to a student in the memory of common machines."""

_Tau = Annotated[float, Field(gt=0, le=100)]
_Part = Annotated[float, Field(ge=0, le=1000)]


NEEDS = {
    "labels": frozenset[str](),
    "last-epoch": frozenset({"self"}),
    "in-place": frozenset({"self"}),
    "relations": frozenset({"relations"}),
    "similarity": frozenset({"features"}),
    "attention": frozenset({"attention"}),
    "features": frozenset({"features"}),
}
"""Signals of terms; all others compare logits alone."""


class Term(Value):
    """One term of the loss."""

    kind: Any
    weight: float = Field(ge=0, le=1e6, default=1.0)

    @property
    def needs(self) -> frozenset[str]:
        """Its signals: `logits`, `features`, `relations`, `attention` or `self`."""
        return NEEDS.get(self.kind, frozenset({"logits"}))

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean loss of a batch, without the weight."""
        raise NotImplementedError


class TeacherTerm(Term):
    """A term that learns from a teacher.

    Attributes:
        teacher: Number of the teacher, from 1, in the order of `--teacher`; absent from JSON where it is the first,
            so that recipes with one teacher keep their digests.
    """

    teacher: int = Field(ge=1, le=MAX_TEACHERS, default=1, exclude_if=lambda number: number == 1)


class Labels(Term):
    """Cross-entropy with the labels, smoothed as the recipe says."""

    kind: Literal["labels"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(signals.logits, signals.labels, label_smoothing=signals.smoothing)


class Soft(TeacherTerm):
    """Divergence of softened distributions, times tau^2 (Hinton et al. 2015).

    Attributes:
        direction: `forward` is KL(teacher || student), `reverse` KL(student || teacher).
        standardise: Compare Z-scores of the logits (Sun et al. 2024).
        tau: Temperature at the beginning.
        tau_end: That at the end of the run, linearly in between; None for the same.
        learned: Learn the temperature instead of `tau`: true is one temperature against the student and "image" one
            for each image (CTKD, Li et al. 2023); "meta" is one for the student and one for the teacher that lower
            the labels' loss (MKD, Liu et al. 2022; `Objective.meta_loss`), with their product in place of tau^2.
        ramp_epochs: Epochs until CTKD's gradient is reversed in full.
    """

    kind: Literal["soft"]
    direction: Literal["forward", "reverse"] = "forward"
    standardise: bool = False
    tau: _Tau = 1.0
    tau_end: _Tau | None = None
    learned: Literal[False, True, "image", "meta"] = False
    ramp_epochs: float = Field(gt=0, default=10)

    def temperatures(self, signals: Signals) -> Sequence[Tensor | float]:
        """Return the student's and the teacher's temperature, (B, 1) where each image has its own."""
        learned = signals.learned
        if self.learned == "meta":
            return bounded_temperature(learned["temperatures"]).unbind()
        if self.learned:
            prediction = learned["temperature"]
            if self.learned == "image":
                prediction = predicted_temperature(
                    signals.logits, signals.of_teacher, learned["hidden"], learned["output"], prediction
                )
            return [learned_temperature(prediction, signals.epoch, self.ramp_epochs)] * 2
        end = self.tau if self.tau_end is None else self.tau_end
        return [self.tau + (end - self.tau) * signals.epoch / signals.epochs] * 2

    def loss(self, signals: Signals) -> Tensor:
        """Return tau^2 times the divergence."""
        pair = (signals.logits, signals.of_teacher)
        if self.standardise:
            pair = (standardised(pair[0]), standardised(pair[1]))
        student, teacher = self.temperatures(signals)
        each = divergences(pair[0] / student, pair[1] / teacher, reverse=self.direction == "reverse")
        return (student * teacher * each).mean()


class Hard(TeacherTerm):
    """Cross-entropy with the teacher's decision (DeiT, Touvron et al. 2021)."""

    kind: Literal["hard"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(signals.logits, signals.of_teacher.argmax(1))


class SquaredError(TeacherTerm):
    """Mean squared difference of logits (Ba & Caruana 2014; Kim et al. 2021)."""

    kind: Literal["mse"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean over images and classes."""
        return F.mse_loss(signals.logits, signals.of_teacher)


class Dist(TeacherTerm):
    """DIST (Huang et al. 2022): `beta` weighs rows (images), `gamma` columns (classes)."""

    kind: Literal["dist"]
    beta: _Part = 1.0
    gamma: _Part = 1.0
    tau: _Tau = 1.0

    def loss(self, signals: Signals) -> Tensor:
        """Return tau^2 times the weighted distances of rows and columns."""
        student, teacher = ((x / self.tau).softmax(1) for x in (signals.logits, signals.of_teacher))
        inter, intra = pearson_distance(student, teacher), pearson_distance(student.T, teacher.T)
        return self.tau**2 * (self.beta * inter + self.gamma * intra)


class Dkd(TeacherTerm):
    """DKD (Zhao et al. 2022): `alpha` weighs target against rest, `beta` the rest's classes."""

    kind: Literal["dkd"]
    alpha: _Part = 1.0
    beta: _Part = 8.0
    tau: _Tau = 4.0

    def loss(self, signals: Signals) -> Tensor:
        """Return tau^2 times both divergences."""
        target, pairs, rest = signals.classes, [], []
        for logits in (signals.logits / self.tau, signals.of_teacher / self.tau):
            rest.append(without_target(logits, target))
            pairs.append(torch.stack((logits.gather(1, target[:, None])[:, 0], rest[-1].logsumexp(1)), 1))
        return self.tau**2 * (self.alpha * divergence(*pairs) + self.beta * divergence(*rest))


class Nkd(TeacherTerm):
    """NKD (Yang et al. 2023): `gamma` weighs the classes other than the target, normalised to 1."""

    kind: Literal["nkd"]
    gamma: _Part = 1.5
    tau: _Tau = 1.0

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropies of the target, by the teacher's probability, and of the others."""
        logits, of_teacher, target = signals.logits, signals.of_teacher, signals.classes[:, None]
        of_target = of_teacher.softmax(1).gather(1, target) * logits.log_softmax(1).gather(1, target)
        student, teacher = (without_target(x, target[:, 0]) / self.tau for x in (logits, of_teacher))
        return self.gamma * self.tau**2 * F.cross_entropy(student, teacher.softmax(1)) - of_target.mean()


class NormKd(TeacherTerm):
    """NormKD (Chi et al. 2023): an image's temperatures are `tau` times the deviations of its logits."""

    kind: Literal["normkd"]
    tau: _Tau = 2.0

    def loss(self, signals: Signals) -> Tensor:
        """Return the divergences, each times its teacher's squared temperature."""
        pair = signals.logits, signals.of_teacher
        temperatures = [self.tau * x.std(1, keepdim=True) + EPSILON for x in pair]
        each = divergences(*(x / t for x, t in zip(pair, temperatures, strict=True)))
        return (temperatures[1] ** 2 * each).mean()


class LastEpoch(Term):
    """Self-distillation from the last epoch's weights (PS-KD, Kim et al. 2021).

    The target is (1 - a) label + a p, with p of the last epoch and a growing linearly to `alpha` at the end. It
    holds the labels itself, without smoothing.
    """

    kind: Literal["last-epoch"]
    alpha: float = Field(ge=0, le=1, default=0.8)

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy with the mixed target."""
        own = F.cross_entropy(signals.logits, signals.labels)
        if signals.previous_logits is None:
            return own
        part = self.alpha * (math.floor(signals.epoch) + 1) / signals.epochs
        previous = F.cross_entropy(signals.logits, signals.previous_logits.softmax(1))
        return (1 - part) * own + part * previous


class InPlace(Term):
    """Self-distillation from a sandwich's largest subnet, which gets no gradient (BigNAS, Yu et al. 2020)."""

    kind: Literal["in-place"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy with the largest subnet's distribution; 0 for the largest itself."""
        if signals.largest_logits is None:
            return signals.logits.new_zeros(())
        return F.cross_entropy(signals.logits, signals.largest_logits.softmax(1))


class Relations(TeacherTerm):
    """Token relations softmax(a b^T / sqrt(head_dim)) of the last attention, one for each a b of `pairs`.

    MiniLM (Wang et al. 2020) and TinyMIM (Ren et al. 2023) have q-k and v-v, MiniLMv2 (Wang et al. 2021) q-q, k-k
    and v-v. TinyMIM prefers a large teacher's intermediate layer; here it is the last.
    """

    kind: Literal["relations"]
    pairs: tuple[Literal["qq", "kk", "vv", "qk"], ...] = Field(
        default=("qk", "vv"), min_length=1, max_length=4
    )
    heads: int = Field(ge=1, le=256, default=4)

    def loss(self, signals: Signals) -> Tensor:
        """Return the sum over pairs of KL(teacher || student), a mean over images, heads and tokens."""
        assert signals.qkv is not None
        assert signals.teacher_qkv is not None
        relations: list[list[Tensor]] = []
        for x in on_common_grid(signals.qkv, signals.teacher_qkv):
            tokens = x.flatten(2)
            parts = tokens.reshape(len(x), 3, self.heads, -1, tokens.shape[2]).transpose(3, 4).unbind(1)
            named, dim = dict(zip("qkv", parts, strict=True)), parts[0].shape[-1]
            products = [named[pair[0]] @ named[pair[1]].transpose(2, 3) for pair in self.pairs]
            relations.append([(product / math.sqrt(dim)).flatten(0, 2) for product in products])
        return torch.stack([divergence(s, t) for s, t in zip(*relations, strict=True)]).sum()


class Maps(TeacherTerm):
    """A loss of maps at the ends of the last `stages` stages, paired from the end and averaged.

    `features` has a learned projector for each stage, which is never exported.
    """

    kind: Literal["similarity", "attention", "features"]
    stages: int = Field(ge=1, le=16, default=1)

    @property
    def needs(self) -> frozenset[str]:
        """Maps; only where they are large, for attention transfer."""
        return frozenset({"attention" if self.kind == "attention" else "features"})

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean over stages."""
        losses = []
        for stage in range(1, self.stages + 1):
            pair = signals.features[-stage], signals.teacher_features[-stage]
            if self.kind == "features":
                projector = signals.learned[f"projector-{stage}"][:, : pair[0].shape[1]]
                losses.append(features_loss(*pair, projector))
            else:
                losses.append(attention_loss(*pair) if self.kind == "attention" else similarity_loss(*pair))
        return torch.stack(losses).mean()


AnyTerm = Annotated[
    Labels | Soft | Hard | SquaredError | Dist | Dkd | Nkd | NormKd | LastEpoch | InPlace | Relations | Maps,
    Field(discriminator="kind"),
]
"""A term of a recipe; `kind` says which."""
