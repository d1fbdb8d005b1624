"""The terms of a recipe in a training: signals that they need, learned tensors, and the last epoch's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from luts.format.errors import UsageError
from search.spaces import Arch
from search.supernet.model.elastic import Slice
from search.supernet.model.supernet import Recorded, Supernet
from search.supernet.model.weights_file import copy_into
from search.supernet.recipe.recipe import Recipe, scope_of
from search.supernet.recipe.terms import AnyTerm, InPlace, Maps, Relations, Signals, Soft, TeacherTerm
from search.supernet.train.checkpoint import under
from search.supernet.train.optimizer import SlicedAdamW
from search.supernet.train.teacher import Teacher

RECORDED = frozenset({"features", "relations", "attention"})
"""Signals that a forward pass of teacher and student must record; stored teacher labels lack them."""

HIDDEN = 64
"""Width of CTKD's MLP, far below the networks'; ours, as is that it begins with one temperature for all images."""

META_START = math.log(3 / 17)
"""MKD's temperatures begin at 4, the usual constant."""

META_STEP = 0.01
"""Norm of the step of finite differences, as in DARTS (Liu et al. 2019)."""


class Objective(nn.Module):
    """The weighted sum of a recipe's terms, with its learned tensors, which are never exported.

    Attributes:
        terms: Those whose weight is not 0.
        taught: Numbers of the teachers that terms learn from, from 1.
        recording: Those of them whose forward pass must record more than logits, as must the student's.
        in_place: Whether a sandwich's smaller subnets have this objective; else the largest's logits alone.
        previous: Weights at the end of the last epoch; empty where no term needs them, and in the first epoch.
        optimizer: Of the learned tensors.
    """

    def __init__(
        self, recipe: Recipe, supernet: Supernet, teachers: Sequence[Teacher], arch: Arch, sandwich: bool
    ):
        """Check on two blank images, for a sampled `arch`, that teachers and student have the signals of all terms.

        Raises UsageError where a signal is missing, no term uses a teacher, or one knows other classes.
        """
        super().__init__()
        self.name, self.epochs, self.smoothing = recipe.name, recipe.epochs, recipe.label_smoothing
        self.terms: list[AnyTerm] = [term for term in recipe.distillation.terms if term.weight]
        taught = [term for term in self.terms if isinstance(term, TeacherTerm)]
        self.taught = {term.teacher for term in taught}
        self.recording = {term.teacher for term in taught if term.needs & RECORDED}
        self.in_place = any(isinstance(term, InPlace) for term in self.terms)
        self.keeps_previous = any(term.kind == "last-epoch" for term in self.terms)
        self.previous: dict[str, Tensor] = {}
        if self.in_place and not sandwich:
            raise self._missing(
                "in-place", 'a larger subnet in the same step; set sampler = "sandwich" or "exits"'
            )
        device, classes = next(supernet.parameters()).device, supernet.space.default_classes
        of_teachers = self._check_teachers(teachers, classes, arch.resolution)
        recorded = Recorded()
        if self.recording:
            with torch.no_grad():
                supernet(
                    torch.zeros(2, 3, arch.resolution, arch.resolution, device=device),
                    arch,
                    recorded=recorded,
                )
        counts = scope_of(recipe, supernet.space).stage_counts
        stages = len(recorded.features) - (len(arch.stages) - min(counts))
        generator = torch.Generator().manual_seed(recipe.seed)
        self.learned = nn.ParameterDict()
        for index, term in enumerate(self.terms):
            for name, value in self._temperatures(term, recipe, classes, generator).items():
                self.learned[f"{index}-{name}"] = nn.Parameter(value)
            if not isinstance(term, Maps | Relations):
                continue
            of_teacher = of_teachers[term.teacher]
            self._check_recorded(term, stages, recorded, of_teacher)
            for stage in _projected(term):
                inputs = max(_width(supernet, count - stage) for count in counts)
                size = of_teacher.features[-stage].shape[1], inputs
                weight = torch.randn(size, generator=generator) / inputs**0.5
                self.learned[f"{index}-projector-{stage}"] = nn.Parameter(weight)
        self.to(device)
        self.optimizer = SlicedAdamW(
            dict(self.named_parameters()), recipe.betas, weight_decay=recipe.weight_decay
        )
        self._widths: dict[str, int] = {}

    def _missing(self, kind: str, what: str) -> UsageError:
        return UsageError(f"recipe {self.name}: term {kind} needs {what}", code="missing_signal")

    def _check_teachers(self, teachers: Sequence[Teacher], classes: int, side: int) -> dict[int, Recorded]:
        """Return what teachers record of blank images, by number; refuse a missing one and one without a term."""
        for term in self.terms:
            if isinstance(term, TeacherTerm) and term.teacher > len(teachers):
                given = ",".join(["timm:NAME[:CHECKPOINT]"] * term.teacher)
                which = "a teacher" if term.teacher == 1 else f"teacher {term.teacher}"
                raise self._missing(term.kind, f"{which}; add --teacher {given}")
        of_teachers = {number: Recorded() for number in self.taught}
        for number, teacher in enumerate(teachers, 1):
            if number not in self.taught:
                raise UsageError(
                    f"recipe {self.name}: no term learns from teacher {number}, {teacher.name}; leave it out, or "
                    f"add a term with teacher = {number}",
                    code="option_does_not_apply",
                )
            self._probe_teacher(number, teacher, classes, side, of_teachers[number])
        return of_teachers

    def _temperatures(
        self, term: AnyTerm, recipe: Recipe, classes: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the initial values of what a term learns its temperatures with, by name."""
        if not isinstance(term, Soft) or not term.learned:
            return {}
        if term.learned == "meta":
            if recipe.batch_size // recipe.micro_batches < 4:
                raise self._missing('soft with learned = "meta"', "micro-batches of four images or more")
            return {"temperatures": torch.full((2,), META_START)}
        values = {"temperature": torch.ones(1)}
        if term.learned == "image":
            inputs = 2 * classes + 1
            values["hidden"] = torch.randn((HIDDEN, inputs), generator=generator) / inputs**0.5
            values["output"] = torch.zeros(HIDDEN, 1)
        return values

    def _probe_teacher(
        self, number: int, teacher: Teacher, classes: int, side: int, recorded: Recorded
    ) -> None:
        """Run a teacher once, and refuse one of other classes or without the signals of its terms."""
        own = [term for term in self.terms if isinstance(term, TeacherTerm) and term.teacher == number]
        recording = next((term.kind for term in own if term.needs & RECORDED), None)
        if recording and teacher.labels is not None:
            raise self._missing(recording, "more than stored logits; leave --teacher-labels out")
        if recording and not hasattr(teacher.model, "forward_intermediates"):
            raise self._missing(
                recording, f"feature maps, which {teacher.name} does not give; use another teacher"
            )
        logits = teacher.observe(torch.zeros(2, 3, side, side), recorded if recording else None)
        if logits.shape[1] != classes:
            raise UsageError(
                f"teacher {teacher.name} knows {logits.shape[1]} classes, the images have {classes}; give one "
                "trained on these classes, in this order",
                code="class_mismatch",
            )

    def _check_recorded(
        self, term: Maps | Relations, stages: int, recorded: Recorded, of_teacher: Recorded
    ) -> None:
        """Refuse networks that lack what a term compares."""
        if isinstance(term, Maps):
            fewest = min(stages, len(of_teacher.features))
            if fewest < term.stages:
                raise self._missing(
                    term.kind,
                    f"maps of {term.stages} stages; teacher and smallest student have {max(0, fewest)}",
                )
            last = [*recorded.features[-term.stages :], *of_teacher.features[-term.stages :]]
            if any(each.ndim != 4 for each in last):
                raise self._missing(
                    term.kind, "maps (B, channels, H, W) at the ends of stages; drop the term"
                )
        if isinstance(term, Relations):
            for who, each in (("the student", recorded.qkv), ("the teacher", of_teacher.qkv)):
                if each is None:
                    raise self._missing(term.kind, f"an attention over all tokens, which {who} lacks")
                if each.shape[1] % (3 * term.heads):
                    raise self._missing(
                        term.kind,
                        f"heads that divide {who}'s {each.shape[1] // 3} channels, not {term.heads}",
                    )

    def loss(self, signals: Signals, taught: Sequence[Recorded]) -> Tensor:
        """Return the weighted sum of all terms; `taught` is what each teacher says of the images."""
        losses = []
        for index, term in enumerate(self.terms):
            losses.append(term.weight * term.loss(self._signals_of(index, signals, taught)))
            for stage in _projected(term):
                name = f"{index}-projector-{stage}"
                self._widths[name] = max(self._widths.get(name, 0), signals.features[-stage].shape[1])
        return torch.stack(losses).sum()

    def _signals_of(
        self, index: int, signals: Signals, taught: Sequence[Recorded], *, meta: bool = False
    ) -> Signals:
        """Return the signals with those of a term's teacher and its learned tensors.

        Temperatures of MKD have gradients only with `meta`.
        """
        term, prefix = self.terms[index], f"{index}-"
        learned = {
            name.removeprefix(prefix): x.detach() if name.endswith("-temperatures") and not meta else x
            for name, x in self.learned.items()
            if name.startswith(prefix)
        }
        if not isinstance(term, TeacherTerm):
            return replace(signals, learned=learned)
        teacher = taught[term.teacher - 1]
        return replace(
            signals,
            learned=learned,
            teacher_logits=teacher.logits,
            teacher_features=teacher.features,
            teacher_qkv=teacher.qkv,
        )

    def meta_loss(
        self, supernet: Supernet, images: Tensor, arch: Arch, signals: Signals, taught: Sequence[Recorded]
    ) -> Tensor:
        """Return a loss of value 0 whose gradient moves MKD's temperatures (Liu et al. 2022).

        A small step of gradient descent on a term's loss L of some images changes the cross-entropy of others by
        -<J v, dL/dz> times its rate: v is the gradient of that cross-entropy in the weights, and J v the derivative
        of the logits z along v, taken by central differences. The temperatures descend this change. The paper
        has a validation set for the cross-entropy; here it is the second half of the micro-batch and L that of the
        first half, so that no image is held out.
        """
        metas = [n for n, term in enumerate(self.terms) if isinstance(term, Soft) and term.learned == "meta"]
        if not metas:
            return signals.logits.new_zeros(())
        half = len(images) // 2
        weights = {name: value.detach() for name, value in supernet.named_parameters()}
        moving = {name: value.clone().requires_grad_() for name, value in weights.items()}
        logits = functional_call(supernet, moving, (images[half:], arch))
        loss = F.cross_entropy(logits, signals.labels[half:])
        found = torch.autograd.grad(loss, list(moving.values()), allow_unused=True)
        v = {name: g for name, g in zip(moving, found, strict=True) if g is not None}
        step = META_STEP / torch.stack([g.norm() for g in v.values()]).norm().clamp_min(1e-12)
        with torch.no_grad():
            ahead, behind = (
                functional_call(
                    supernet,
                    weights | {n: weights[n] + sign * step * g for n, g in v.items()},
                    (images[:half], arch),
                )
                for sign in (1, -1)
            )
        change, z = (ahead - behind) / (2 * step), ((ahead + behind) / 2).requires_grad_()
        losses = []
        for index in metas:
            own = self._signals_of(index, signals, taught, meta=True)
            own = replace(own, logits=z, teacher_logits=own.of_teacher[:half])
            (gradient,) = torch.autograd.grad(self.terms[index].loss(own), z, create_graph=True)
            losses.append(-(gradient * change).sum())
        total = torch.stack(losses).sum()
        return total - total.detach()

    def start_step(self) -> None:
        """Forget which inputs of the projectors the last step's subnets had."""
        self._widths.clear()
        self.optimizer.zero_grad()

    def slices(self) -> Iterator[Slice]:
        """Yield what the step's subnets used of the learned tensors."""
        for name, value in self.learned.items():
            shape = (*value.shape[:-1], self._widths.get(name, value.shape[-1]))
            source = f"learned.{name}"
            yield Slice(source, source, shape, tuple(value.shape), tuple(slice(0, side) for side in shape))

    @torch.no_grad()
    def previous_logits(self, supernet: Supernet, images: Tensor, arch: Arch) -> Tensor | None:
        """Return a subnet's logits with the last epoch's weights; None in the first epoch."""
        if not self.previous:
            return None
        logits: Tensor = functional_call(supernet, self.previous, (images, arch)).float()
        return logits

    def finish_epoch(self, supernet: Supernet) -> None:
        """Keep the weights for the next epoch, if a term needs them."""
        if self.keeps_previous:
            self.previous = {name: value.detach().clone() for name, value in supernet.named_parameters()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Return learned tensors, their optimizer's state and the last epoch's weights, for a checkpoint."""
        tensors = {f"objective/{name}": value.detach() for name, value in self.named_parameters()}
        tensors |= {f"moments/{name}": value for name, value in self.optimizer.state_tensors().items()}
        return tensors | {f"previous/{name}": value for name, value in self.previous.items()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor], supernet: Supernet) -> None:
        """Overwrite all of that; raises InvalidArtifactError for another objective's."""
        refusal = "learned tensors belong to other terms; train from the start"
        copy_into(dict(self.named_parameters()), under("objective/", tensors), refusal)
        self.optimizer.load_state_tensors(under("moments/", tensors))
        if previous := under("previous/", tensors):
            self.finish_epoch(supernet)
            copy_into(self.previous, previous, refusal)


def _width(supernet: Supernet, stage: int) -> int:
    """Return the largest width of a stage's maps."""
    choices = supernet.space.stages[stage]
    return choices.width(tuple(max(allowed) for _, allowed in choices.choices))


def _projected(term: AnyTerm) -> range:
    """Return the stages of a term that have projectors, counted from the end."""
    return range(1, term.stages + 1) if isinstance(term, Maps) and term.kind == "features" else range(0)
