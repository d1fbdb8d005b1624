"""What a subnet learns from: labels, a teacher's decisions (AutoViT, equations 3 and 4), or a larger subnet."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class Distillation(BaseModel):
    """How much a teacher counts; without one only the labels do.

    Attributes:
        kind: `soft` compares distributions (equation 3), `hard` takes the teacher's decision as a label
            (equation 4), `none` takes no teacher.
        alpha: Share of the teacher's term in the loss.
        tau: Temperature of `soft`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "soft", "hard"] = "hard"
    alpha: float = Field(ge=0, le=1, default=0.5)
    tau: float = Field(gt=0, le=100, default=1.0)

    def loss(
        self, logits: Tensor, target: Tensor, teacher_logits: Tensor | None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean loss of a batch.

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


def divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of a batch, the mean over its images, in nats.

    Equation 3 writes the student first; its text and its source (Hinton et al. 2015) mean the divergence of
    the student from the teacher, as does DeiT's code.
    """
    student, teacher = logits.log_softmax(1), teacher_logits.log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def in_place(logits: Tensor, largest_logits: Tensor) -> Tensor:
    """Loss of a smaller subnet of a sandwich: cross-entropy with the largest one's soft labels alone.

    BigNAS (Yu et al. 2020), section 3.1; no gradient reaches the largest.
    """
    return F.cross_entropy(logits, largest_logits.detach().softmax(1))
