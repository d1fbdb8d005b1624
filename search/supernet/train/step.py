"""The inside of a step of Algorithm 1: gradients of its subnets, and an update of their weights alone."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from luts.format.errors import BlocktimeError
from search.spaces import Arch
from search.supernet.data.batches import Batch
from search.supernet.model.drop_path import DropPath
from search.supernet.model.slices import Slice
from search.supernet.recipe.distill import in_place
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.samplers import Sampler
from search.supernet.train.checkpoint import TrainingState
from search.supernet.train.checkpoint_info import INFO_FILE
from search.supernet.train.optimizer import gradient_norm
from search.supernet.train.precision import Precision


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before."""


@dataclass(frozen=True)
class SubnetStep:
    """Every random number follows from the recipe's seed and the number of the step.

    Attributes:
        directory: Of the run, named where it diverges.
        frozen: Parameters that stand still.
    """

    recipe: Recipe
    state: TrainingState
    sampler: Sampler
    precision: Precision
    directory: Path
    frozen: frozenset[str] = frozenset()

    def sample(self, step: int, resolution: int) -> tuple[Arch, ...]:
        """The subnets of a step."""
        return self.sampler.draw(random.Random(f"arch {self.recipe.seed} {step}"), resolution)

    def backward(
        self, archs: tuple[Arch, ...], step: int, part: int, batch: Batch, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a micro-batch's subnets; its share of the loss, and logits, of the first."""
        recipe, (images, labels) = self.recipe, batch
        first: tuple[Tensor, Tensor] | None = None
        for arch in archs:
            example = first[1] if first is not None and self.sampler.in_place else None
            drop_path = self._drop_path(step, part) if example is None else None
            with self.precision.autocast():
                logits = self.state.supernet(images, arch, drop_path).float()
            if example is not None:
                loss = in_place(logits, example)
            else:
                loss = recipe.distillation.loss(logits, labels, teacher_logits, recipe.label_smoothing)
            loss = loss / recipe.micro_batches
            torch.autograd.backward(self.precision.scaled(loss))
            first = first or (loss.detach(), logits.detach())
        if first is None:
            raise ValueError("a step has at least one subnet")
        return first

    def complete_gradients(self, archs: tuple[Arch, ...]) -> None:
        """Zeros where the subnets' parameters have no gradients, so that processes send equally many."""
        parameters = dict(self.state.supernet.named_parameters())
        for source in {part.source for part in self._moving(archs)}:
            if parameters[source].grad is None:
                parameters[source].grad = torch.zeros_like(parameters[source])

    def update(self, archs: tuple[Arch, ...], step: int, learning_rate: float, loss: float) -> None:
        """Clip the gradients and move the subnets' slices.

        Raises:
            TrainingDivergedError: loss or gradients are not finite; names step and subnet.
        """
        self.precision.unscale()
        norm = gradient_norm(self.state.supernet.parameters())
        if not (math.isfinite(loss) and (norm.isfinite() or self.precision.scales)):
            saved = (self.directory / INFO_FILE).exists()
            goes_on = f"goes on from the last checkpoint in {self.directory}" if saved else "begins anew"
            raise TrainingDivergedError(
                f"training diverged at step {step} (loss {loss:g}, gradient norm {norm.item():g}) "
                f"with subnet {archs[0].to_json()}; repeat the command with a lower "
                f"--learning-rate or --clip-norm: it {goes_on}"
            )
        if self.recipe.agc:
            from timm.utils import adaptive_clip_grad  # brings torchvision and torch._dynamo: seconds

            adaptive_clip_grad(self.state.supernet.parameters(), self.recipe.agc)
        if 0 < self.recipe.clip_norm < norm:
            for parameter in self.state.supernet.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.recipe.clip_norm / norm)
        self.precision.update(lambda: self.state.optimizer.step(self._moving(archs), learning_rate))

    def _moving(self, archs: tuple[Arch, ...]) -> Iterator[Slice]:
        """The parts of the weights that a step of these subnets changes."""
        slices = (part for arch in archs for part in self.state.supernet.slices(arch))
        return (part for part in slices if part.source not in self.frozen)

    def _drop_path(self, step: int, part: int) -> DropPath | None:
        rate = self.recipe.drop_path
        return DropPath(rate, f"{self.recipe.seed} {step} {part}") if rate else None
