"""The terms of a recipe in a training: signals that they need, learned tensors, and the last epoch's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from luts.format.errors import UsageError
from search.spaces import Arch
from search.supernet.model.elastic import Slice
from search.supernet.model.supernet import Recorded, Supernet
from search.supernet.model.weights_file import copy_into
from search.supernet.recipe.recipe import Recipe, scope_of
from search.supernet.recipe.terms import AnyTerm, InPlace, Maps, Relations, Signals, Soft
from search.supernet.train.checkpoint import under
from search.supernet.train.optimizer import SlicedAdamW
from search.supernet.train.teacher import Teacher

RECORDED = frozenset({"features", "relations", "attention"})
"""Signals that a forward pass of teacher and student must record; stored teacher labels lack them."""


class Objective(nn.Module):
    """The weighted sum of a recipe's terms, with its learned tensors, which are never exported.

    Attributes:
        terms: Those whose weight is not 0.
        needs_teacher: Whether any term needs a teacher.
        recording: Whether any needs more of a forward pass than logits.
        in_place: Whether a sandwich's smaller subnets have this objective; else the largest's logits alone.
        previous: Weights at the end of the last epoch; empty where no term needs them, and in the first epoch.
        optimizer: Of the learned tensors.
    """

    def __init__(
        self, recipe: Recipe, supernet: Supernet, teacher: Teacher | None, arch: Arch, sandwich: bool
    ):
        """Check on two blank images, for a sampled `arch`, that teacher and student have the signals of all terms.

        Raises UsageError where a signal is missing or the teacher knows other classes.
        """
        super().__init__()
        self.name, self.epochs, self.smoothing = recipe.name, recipe.epochs, recipe.label_smoothing
        self.terms: list[AnyTerm] = [term for term in recipe.distillation.terms if term.weight]
        needs = frozenset[str]().union(*(term.needs for term in self.terms))
        self.needs_teacher, self.recording = bool(needs - {"self"}), bool(needs & RECORDED)
        self.in_place = any(isinstance(term, InPlace) for term in self.terms)
        self.keeps_previous = any(term.kind == "last-epoch" for term in self.terms)
        self.previous: dict[str, Tensor] = {}
        if self.in_place and not sandwich:
            raise self._missing(
                "in-place", 'a larger subnet in the same step; set sampler = "sandwich" or "exits"'
            )
        if self.needs_teacher and teacher is None:
            first = next(term.kind for term in self.terms if term.needs - {"self"})
            raise self._missing(first, "a teacher; add --teacher timm:NAME[:CHECKPOINT]")
        device = next(supernet.parameters()).device
        recorded, of_teacher = Recorded(), Recorded()
        if self.needs_teacher and teacher is not None:
            self._probe_teacher(teacher, supernet, arch.resolution, of_teacher)
        if self.recording:
            with torch.no_grad():
                supernet(
                    torch.zeros(2, 3, arch.resolution, arch.resolution, device=device),
                    arch,
                    recorded=recorded,
                )
        counts = scope_of(recipe, supernet.space).stage_counts
        stages = len(recorded.features) - (len(arch.stages) - min(counts))
        for term in self.terms:
            self._check_recorded(term, stages, recorded, of_teacher)
        generator = torch.Generator().manual_seed(recipe.seed)
        self.learned = nn.ParameterDict()
        for index, term in enumerate(self.terms):
            if isinstance(term, Soft) and term.learned:
                self.learned[f"{index}-temperature"] = nn.Parameter(torch.ones(1))
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

    def _probe_teacher(self, teacher: Teacher, supernet: Supernet, side: int, recorded: Recorded) -> None:
        """Run the teacher once, and refuse one of other classes or without the terms' signals."""
        recording = next((term.kind for term in self.terms if term.needs & RECORDED), None)
        if recording and teacher.labels is not None:
            raise self._missing(recording, "more than stored logits; leave --teacher-labels out")
        if recording and not teacher.observable:
            raise self._missing(
                recording, f"feature maps, which {teacher.name} does not give; use another teacher"
            )
        logits = teacher.observe(torch.zeros(2, 3, side, side), recorded if recording else None)
        if logits.shape[1] != supernet.space.default_classes:
            raise UsageError(
                f"teacher {teacher.name} knows {logits.shape[1]} classes, the images have "
                f"{supernet.space.default_classes}; give one trained on these classes, in this order",
                code="class_mismatch",
            )

    def _check_recorded(self, term: AnyTerm, stages: int, recorded: Recorded, of_teacher: Recorded) -> None:
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

    def loss(self, signals: Signals) -> Tensor:
        """Return the weighted sum of all terms."""
        losses = []
        for index, term in enumerate(self.terms):
            prefix = f"{index}-"
            learned = {
                name.removeprefix(prefix): x for name, x in self.learned.items() if name.startswith(prefix)
            }
            losses.append(term.weight * term.loss(replace(signals, learned=learned)))
            for stage in _projected(term):
                name = f"{prefix}projector-{stage}"
                self._widths[name] = max(self._widths.get(name, 0), signals.features[-stage].shape[1])
        return torch.stack(losses).sum()

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
