"""Weighted terms of a distillation loss: their fields in a recipe, and the formulas of their papers.

`logits` are those of the student, (B, classes); a loss is the mean over the images of a batch, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

EPSILON = 1e-7
"""Added to divisors that vanish for equal logits, as in Sun et al.'s code (`normalize` of their KD.py)."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What terms compare for a micro-batch and one subnet; None or empty where no term of the recipe needs it.

    Attributes:
        logits: Of the student, (B, classes).
        labels: Of the images, (B,), or class probabilities (B, classes) of mixed images.
        smoothing: Label smoothing of the labels' term.
        epoch: Epochs done, with a fraction.
        epochs: Epochs of the run.
        teacher_logits: (B, classes).
        features: Maps of the student at the ends of its stages, (B, channels, H, W), the last one last.
        teacher_features: Those of the teacher.
        qkv: Queries, keys and values of the student's last attention, (B, 3 * dim, H, W).
        teacher_qkv: Those of the teacher.
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
    def taught(self) -> Tensor:
        """The teacher's logits, which `Objective` makes sure of."""
        assert self.teacher_logits is not None
        return self.teacher_logits


def divergence(logits: Tensor, teacher_logits: Tensor, *, reverse: bool = False) -> Tensor:
    """KL(teacher || student) of a batch; `reverse` swaps the two.

    AutoViT's equation 3 writes the student first; its text and its source (Hinton et al. 2015) mean the divergence
    of the student from the teacher, as does DeiT's code.
    """
    student, teacher = logits.log_softmax(1), teacher_logits.log_softmax(1)
    if reverse:
        student, teacher = teacher, student
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def standardised(logits: Tensor) -> Tensor:
    """Z-score of each image's logits, with the sample deviation (Sun et al. 2024, Algorithm 1)."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPSILON)


def pearson_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean over rows of 1 - Pearson's correlation (DIST, Huang et al. 2022, equations 7 and 8)."""
    one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    return 1 - F.cosine_similarity(one, other, eps=1e-8).mean()


def dist_loss(logits: Tensor, teacher_logits: Tensor, beta: float, gamma: float, tau: float) -> Tensor:
    """DIST (Huang et al. 2022, equations 9 to 11): correlation of each image's classes and each class's images."""
    student, teacher = (logits / tau).softmax(1), (teacher_logits / tau).softmax(1)
    inter, intra = pearson_distance(student, teacher), pearson_distance(student.T, teacher.T)
    return tau**2 * (beta * inter + gamma * intra)


def without_target(logits: Tensor, target: Tensor) -> Tensor:
    """Logits of all classes but each image's own, (B, classes - 1)."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], value=False)
    return logits[others].view(len(logits), -1)


def dkd_loss(signals: Signals, alpha: float, beta: float, tau: float) -> Tensor:
    """DKD (Zhao et al. 2022, equation 7): target against the rest, and the classes of the rest among themselves."""
    target, pairs, rest = signals.classes, [], []
    for logits in (signals.logits / tau, signals.taught / tau):
        rest.append(without_target(logits, target))
        pairs.append(torch.stack((logits.gather(1, target[:, None])[:, 0], rest[-1].logsumexp(1)), 1))
    return tau**2 * (alpha * divergence(*pairs) + beta * divergence(*rest))


def nkd_loss(signals: Signals, gamma: float, tau: float) -> Tensor:
    """NKD (Yang et al. 2023, equation 8): target by the teacher's probability, other classes normalised to 1."""
    logits, taught, target = signals.logits, signals.taught, signals.classes[:, None]
    of_target = taught.softmax(1).gather(1, target) * logits.log_softmax(1).gather(1, target)
    student, teacher = (without_target(each, target[:, 0]) / tau for each in (logits, taught))
    return -of_target.mean() + gamma * tau**2 * F.cross_entropy(student, teacher.softmax(1))


def normkd_loss(logits: Tensor, teacher_logits: Tensor, tau: float) -> Tensor:
    """NormKD (Chi et al. 2023): each image's temperatures are `tau` times the deviations of its logits."""
    of_student, of_teacher = (tau * x.std(1, keepdim=True) + EPSILON for x in (logits, teacher_logits))
    student, teacher = (logits / of_student).log_softmax(1), (teacher_logits / of_teacher).log_softmax(1)
    each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return (of_teacher[:, 0] ** 2 * each).mean()


def learned_temperature(parameter: Tensor, epoch: float, ramp_epochs: float) -> Tensor:
    """Temperature 1 + 20 sigmoid(parameter) whose gradient is reversed (CTKD, Li et al. 2023, equations 6 to 8).

    The reversal grows from 0 to 1 over `ramp_epochs` as half a cosine, so that the loss becomes harder.
    """
    strength = 0.5 * (1 - math.cos(math.pi * min(1.0, epoch / ramp_epochs)))
    reversed_gradient = (1 + strength) * parameter.detach() - strength * parameter
    return 1 + 20 * reversed_gradient.sigmoid()


def on_common_grid(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Average maps (B, channels, H, W) down to the smaller height and width of the two."""
    size = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return F.adaptive_avg_pool2d(one, size), F.adaptive_avg_pool2d(other, size)


def similarity_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Similarity-preserving (Tung & Mori 2019, equations 1 to 4): which images of a batch are alike, row by row."""
    flat = [x.flatten(1) for x in (features, teacher_features)]
    student, teacher = (F.normalize(x @ x.T, dim=1) for x in flat)
    return (student - teacher).square().mean()


def attention_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017, equation 2, p = 2): where activations are large."""
    maps = on_common_grid(*(x.square().sum(1, keepdim=True) for x in (features, teacher_features)))
    student, teacher = (F.normalize(x.flatten(1), dim=1) for x in maps)
    distances: Tensor = torch.linalg.vector_norm(student - teacher, dim=1)
    return distances.mean()


def features_loss(features: Tensor, teacher_features: Tensor, projector: Tensor) -> Tensor:
    """FitNets (Romero et al. 2015, equation 3) with a 1x1 projector (C_teacher, C_student); a mean."""
    student, teacher = on_common_grid(features, teacher_features)
    return 0.5 * F.mse_loss(F.conv2d(student, projector[:, :, None, None]), teacher)


def relations_loss(qkv: Tensor, teacher_qkv: Tensor, heads: int, pairs: Sequence[str]) -> Tensor:
    """Token relations (MiniLMv2, Wang et al. 2021, equations 4 and 5; TinyMIM, Ren et al. 2023, section 3.2).

    A relation is softmax(a b^T / sqrt(head_dim)), (B, heads, N, N); the loss is the sum of
    KL(teacher || student) over `pairs`, such as "qk".
    """
    height, width = on_common_grid(qkv[:, :1], teacher_qkv[:, :1])[0].shape[2:]
    relations: list[list[Tensor]] = []
    for x in (qkv, teacher_qkv):
        tokens = F.adaptive_avg_pool2d(x, (height, width)).flatten(2)
        parts = tokens.reshape(len(x), 3, heads, -1, tokens.shape[2]).transpose(3, 4).unbind(1)
        named = dict(zip("qkv", parts, strict=True))
        dim = parts[0].shape[-1]
        relations.append([named[pair[0]] @ named[pair[1]].transpose(2, 3) / math.sqrt(dim) for pair in pairs])
    each = (divergence(s.flatten(0, 2), t.flatten(0, 2)) for s, t in zip(*relations, strict=True))
    return torch.stack(list(each)).sum()


_Tau = Annotated[float, Field(gt=0, le=100)]
_Part = Annotated[float, Field(ge=0, le=1000)]


class Term(BaseModel):
    """One term; `needs` names its signals: `logits`, `features`, `relations`, `attention` or `self`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    kind: Any
    weight: float = Field(ge=0, le=1e6, default=1.0)

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean loss of a batch, without the weight."""
        raise NotImplementedError


class Labels(Term):
    """Cross-entropy with the labels, smoothed as the recipe says."""

    needs = frozenset()
    kind: Literal["labels"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(signals.logits, signals.labels, label_smoothing=signals.smoothing)


class Soft(Term):
    """Divergence of softened distributions, times tau^2 (Hinton et al. 2015).

    Attributes:
        direction: `forward` is KL(teacher || student), `reverse` KL(student || teacher).
        standardise: Compare Z-scores of the logits (Sun et al. 2024).
        tau: Temperature at the beginning.
        tau_end: That at the end of the run, linearly in between; None for the same.
        learned: Learn the temperature against the student (CTKD), instead of `tau`.
        ramp_epochs: Epochs until the temperature's gradient is reversed in full.
    """

    kind: Literal["soft"]
    direction: Literal["forward", "reverse"] = "forward"
    standardise: bool = False
    tau: _Tau = 1.0
    tau_end: _Tau | None = None
    learned: bool = False
    ramp_epochs: float = Field(gt=0, default=10)

    def temperature(self, signals: Signals) -> Tensor | float:
        """Return the temperature at this point of the run."""
        if self.learned:
            parameter = signals.learned["temperature"].squeeze(0)
            return learned_temperature(parameter, signals.epoch, self.ramp_epochs)
        end = self.tau if self.tau_end is None else self.tau_end
        return self.tau + (end - self.tau) * signals.epoch / signals.epochs

    def loss(self, signals: Signals) -> Tensor:
        """Return tau^2 times the divergence."""
        tau, pair = self.temperature(signals), (signals.logits, signals.taught)
        if self.standardise:
            pair = (standardised(pair[0]), standardised(pair[1]))
        return tau**2 * divergence(pair[0] / tau, pair[1] / tau, reverse=self.direction == "reverse")


class Hard(Term):
    """Cross-entropy with the teacher's decision (DeiT, Touvron et al. 2021, equation 3)."""

    kind: Literal["hard"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(signals.logits, signals.taught.argmax(1))


class SquaredError(Term):
    """Mean squared difference of logits (Ba & Caruana 2014, equation 1; Kim et al. 2021)."""

    kind: Literal["mse"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean over images and classes."""
        return F.mse_loss(signals.logits, signals.taught)


class Dist(Term):
    """DIST: `beta` weighs relations between classes, `gamma` those between images."""

    kind: Literal["dist"]
    beta: _Part = 1.0
    gamma: _Part = 1.0
    tau: _Tau = 1.0

    def loss(self, signals: Signals) -> Tensor:
        """Return `dist_loss`."""
        return dist_loss(signals.logits, signals.taught, self.beta, self.gamma, self.tau)


class Dkd(Term):
    """DKD: `alpha` weighs the target class, `beta` the others."""

    kind: Literal["dkd"]
    alpha: _Part = 1.0
    beta: _Part = 8.0
    tau: _Tau = 4.0

    def loss(self, signals: Signals) -> Tensor:
        """Return `dkd_loss`."""
        return dkd_loss(signals, self.alpha, self.beta, self.tau)


class Nkd(Term):
    """NKD: `gamma` weighs the classes other than the target."""

    kind: Literal["nkd"]
    gamma: _Part = 1.5
    tau: _Tau = 1.0

    def loss(self, signals: Signals) -> Tensor:
        """Return `nkd_loss`."""
        return nkd_loss(signals, self.gamma, self.tau)


class NormKd(Term):
    """NormKD: `tau` is the factor of each image's deviation."""

    kind: Literal["normkd"]
    tau: _Tau = 2.0

    def loss(self, signals: Signals) -> Tensor:
        """Return `normkd_loss`."""
        return normkd_loss(signals.logits, signals.taught, self.tau)


class LastEpoch(Term):
    """Self-distillation from the last epoch's weights (PS-KD, Kim et al. 2021, equations 6 and 7).

    The target is (1 - a) label + a p, with p of the last epoch and a growing linearly to `alpha` at the end. It
    holds the labels itself, without smoothing.
    """

    needs = frozenset({"self"})
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
    """Self-distillation of a sandwich's smaller subnets from the largest, which gets no gradient (BigNAS, 3.1)."""

    needs = frozenset({"self"})
    kind: Literal["in-place"]

    def loss(self, signals: Signals) -> Tensor:
        """Return the cross-entropy with the largest subnet's distribution; 0 for the largest itself."""
        if signals.largest_logits is None:
            return signals.logits.new_zeros(())
        return F.cross_entropy(signals.logits, signals.largest_logits.softmax(1))


class Relations(Term):
    """Token relations of the last attention: MiniLMv2's q-q, k-k and v-v, or TinyMIM's q-k and v-v."""

    needs = frozenset({"relations"})
    kind: Literal["relations"]
    pairs: tuple[Literal["qq", "kk", "vv", "qk"], ...] = Field(
        default=("qk", "vv"), min_length=1, max_length=4
    )
    heads: int = Field(ge=1, le=256, default=4)

    def loss(self, signals: Signals) -> Tensor:
        """Return `relations_loss`."""
        assert signals.qkv is not None
        assert signals.teacher_qkv is not None
        return relations_loss(signals.qkv, signals.teacher_qkv, self.heads, self.pairs)


class MapTerm(Term):
    """A term of maps at the ends of the last `stages` stages, paired from the end and averaged."""

    stages: int = Field(ge=1, le=16, default=1)

    def pair_loss(self, features: Tensor, teacher_features: Tensor, projector: Tensor | None) -> Tensor:
        """Return the loss of one stage."""
        raise NotImplementedError

    def loss(self, signals: Signals) -> Tensor:
        """Return the mean over stages."""
        losses = []
        for stage in range(1, self.stages + 1):
            student, projector = signals.features[-stage], signals.learned.get(f"projector-{stage}")
            own = None if projector is None else projector[:, : student.shape[1]]
            losses.append(self.pair_loss(student, signals.teacher_features[-stage], own))
        return torch.stack(losses).mean()


class Similarity(MapTerm):
    """Similarity-preserving."""

    needs = frozenset({"features"})
    kind: Literal["similarity"]

    def pair_loss(self, features: Tensor, teacher_features: Tensor, projector: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return `similarity_loss`."""
        return similarity_loss(features, teacher_features)


class Attention(MapTerm):
    """Attention transfer."""

    needs = frozenset({"attention"})
    kind: Literal["attention"]

    def pair_loss(self, features: Tensor, teacher_features: Tensor, projector: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return `attention_loss`."""
        return attention_loss(features, teacher_features)


class Features(MapTerm):
    """FitNets: each stage has a learned projector, which is never exported."""

    needs = frozenset({"features"})
    kind: Literal["features"]

    def pair_loss(self, features: Tensor, teacher_features: Tensor, projector: Tensor | None) -> Tensor:
        """Return `features_loss`."""
        assert projector is not None
        return features_loss(features, teacher_features, projector)


AnyTerm = Annotated[
    Labels
    | Soft
    | Hard
    | SquaredError
    | Dist
    | Dkd
    | Nkd
    | NormKd
    | LastEpoch
    | InPlace
    | Relations
    | Similarity
    | Attention
    | Features,
    Field(discriminator="kind"),
]
"""A term of a recipe; `kind` says which."""
