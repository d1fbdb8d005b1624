"""The weight-entangled supernet of a space: the largest network, of which every subnet uses a part."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from luts.format.errors import UsageError
from search.blocks import Group, group_blocks
from search.networks import Network, build_network
from search.networks.mobilevit import TransformerLayer, fold_patches
from search.spaces import Arch, Space, Value
from search.spaces.stages import expand_head, expand_stage, names_slots, stage_slots
from search.supernet.model.elastic import (
    Slice,
    elastic_module,
    has_buffers,
    run_with,
    slices_of,
    take,
    weightless_module,
)

Scales = Mapping[tuple[int, str], Tensor]
"""What a branch counts for each image, 0 or 1 / (1 - rate), (B,): by its block's place in a group and its name in
`BlockSpec.branches`, which is empty where the block is one residual."""


@dataclass(frozen=True)
class DropPath:
    """Leaves out the last block for the fraction `rate` of the images; equal seeds give equal draws."""

    rate: float
    seed: str

    def draw(self, groups: Sequence[Group], images: int) -> list[Scales]:
        """Scales of each group's removable blocks; those of the network's first, whose rate is 0, are left out."""
        rng = random.Random(f"drop path {self.seed}")
        last = sum(_is_residual(group, place) for group in groups for place in range(len(group))) - 1
        drawn: list[Scales] = []
        index = 0
        for group in groups:
            scales: dict[tuple[int, str], Tensor] = {}
            for place, block in enumerate(group):
                if not _is_residual(group, place):
                    continue
                rate, index = self.rate * index / max(1, last), index + 1
                generator = torch.Generator().manual_seed(rng.getrandbits(63))
                for branch in (block.branches or ("",)) if rate else ():
                    scales[place, branch] = (torch.rand(images, generator=generator) >= rate) / (1 - rate)
            drawn.append(scales)
        return drawn


def _is_residual(group: Group, place: int) -> bool:
    """Whether a network stays valid without a block, and no block around it drops it as a branch."""
    return group[place].removable and not (place and "layers" in group[0].branches)


@contextmanager
def leaving_out(module: nn.Module, scales: Scales) -> Iterator[None]:
    """Let the branches of a group's module count by their scales while the context lasts."""
    with ExitStack() as hooks:
        for (place, branch), scale in scales.items():
            block = module.get_submodule(f"layers.{place - 1}") if place else module
            hook = _scaled(scale, not branch)
            hooks.enter_context(block.get_submodule(branch).register_forward_hook(hook))
        yield


def _scaled(scale: Tensor, whole: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that scales f(x), of a branch f(x) or of a whole block x + f(x), by `scale`.

    Tokens may be as many sequences of an image: the images follow each other within each (`unfold_patches`).
    """

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        factors = scale.to(out).repeat(len(out) // len(scale)).view(-1, *[1] * (out.ndim - 1))
        return inputs[0] + (out - inputs[0]) * factors if whole else out * factors

    return hook


@dataclass
class Recorded:
    """What a forward pass records for distillation.

    Attributes:
        logits: A teacher's, (B, classes).
        features: Outputs of stages, in order.
        qkv: Queries, keys and values of the last attention over all tokens, (B, 3 * dim, H, W); None without one.
    """

    logits: Tensor | None = None
    features: list[Tensor] = field(default_factory=list)
    qkv: Tensor | None = None

    @contextmanager
    def recording(self, module: nn.Module, images: int) -> Iterator[None]:
        """Record the attention of a module that runs on so many square images while the context lasts."""
        with ExitStack() as hooks:
            for part in module.modules():
                if isinstance(qkv := getattr(part, "qkv", None), nn.Linear):
                    hook = self._record(images, isinstance(part, TransformerLayer))
                    hooks.enter_context(qkv.register_forward_hook(hook))
            yield

    def _record(self, images: int, unfolded: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Return a hook for tokens (B, prefix + H * W, 3 * dim), or those of patches that are `unfolded`."""

        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            if out.ndim != 3 or (len(out) != images and not unfolded):  # windows
                return
            side, patch = math.isqrt(out.shape[1]), math.isqrt(len(out) // images)
            tokens = out[:, out.shape[1] - side**2 :]
            self.qkv = fold_patches(tokens, patch, images, side * patch, side * patch).float()

        return hook


LIMIT = 512
"""Modules that one run compiles; later ones run as they are. AutoViT's spaces have about 240 at one resolution."""

Backend = str | Callable[..., object]
Call = Callable[[Mapping[str, Tensor], Tensor], Tensor]


class CompiledModules:
    """Runs the modules of groups on weights from elsewhere, compiled at their first call."""

    def __init__(self, limit: int = LIMIT, backend: Backend = "inductor"):
        """Compile at most `limit` modules with a backend of torch.compile."""
        self.limit, self.backend = limit, backend
        self.calls: dict[Group, Call] = {}

    def run(self, group: Group, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Run the module of `group` like `run_with`."""
        if group not in self.calls and len(self.calls) < self.limit:
            self.calls[group] = _compiled(weightless_module(group), self.backend)
        call = self.calls.get(group)
        return call(weights, x) if call else run_with(weightless_module(group), weights, x)


def obstacle(device: torch.device, backend: Backend = "inductor") -> str | None:
    """Why nothing can be compiled for a device, in one line; None where a small function can."""
    try:
        _compiled(nn.SiLU(), backend)({}, torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler, the search for one or its absence raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return None


def _compiled(module: nn.Module, backend: Backend) -> Call:
    def call(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(weights), (x,))

    return torch.compile(  # type: ignore[call-overload]  # its overloads lack `isolate_recompiles`
        call, backend=backend, dynamic=False, isolate_recompiles=True
    )


class Supernet(nn.Module):
    """All architectures of a space in the weights of the largest.

    A slot is the place of one module: the i-th of a stage, or a kind of head. Depth is a prefix of a stage's
    slots, the number of stages an early exit; each kind of head is one slot that all widths share, and all exits
    unless they have heads of their own.
    BN normalises by the batch here; a subnet gets running statistics of its own (`inherit.recalibrate`).

    Attributes:
        own_heads: Whether each number of stages has a head of its own.
        compiled: What runs the modules that leave nothing out, instead of plain calls.
    """

    def __init__(self, space: Space, seed: int = 0, *, own_heads: bool = False):
        """Build the largest module of every slot with random weights."""
        super().__init__()
        self.space, self.own_heads = space, own_heads
        self._largest = _largest(space, own_heads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slots = nn.ModuleDict({slot: elastic_module(group) for slot, group in self._largest.items()})
        self.compiled: CompiledModules | None = None
        self._slices: dict[tuple[str, Group], tuple[Slice, ...]] = {}
        self._named: dict[tuple[int, str, Group], tuple[Slice, ...]] = {}

    def forward(
        self, x: Tensor, arch: Arch, drop_path: DropPath | None = None, recorded: Recorded | None = None
    ) -> Tensor:
        """Return logits (B, classes) of the subnet `arch` for images (B, 3, resolution, resolution).

        `recorded` gets what the pass records; None records nothing.
        """
        weights, path = dict(self.named_parameters()), self.path(arch)
        cut = [self._slices_of(slot, group) for slot, group in path]
        parts = [part for slices in cut for part in slices]
        taken = iter(take(parts, [weights[part.source] for part in parts]))
        groups = [group for _, group in path]
        left_out = drop_path.draw(groups, len(x)) if drop_path else [{}] * len(groups)
        ends, images = set(stage_ends(path)) if recorded else set(), len(x)
        for place, ((slot, group), slices, scales) in enumerate(zip(path, cut, left_out, strict=True)):
            if recorded is not None and place in ends:
                recorded.features.append(x.float())
            weights_here = {part.name: next(taken) for part in slices}
            own = self.slots[slot] if has_buffers(self.slots[slot]) else None
            if self.compiled is not None and not scales and own is None and recorded is None:
                x = self.compiled.run(group, weights_here, x)
                continue
            module = own or weightless_module(group)
            with (
                leaving_out(module, scales),
                recorded.recording(module, images) if recorded else nullcontext(),
            ):
                x = run_with(module, weights_here, x)
        return x

    def slices(self, arch: Arch) -> tuple[Slice, ...]:
        """Every part of the weights that `arch` uses, with the names of `extract(arch)`'s parameters."""
        slices: list[Slice] = []
        for index, (slot, group) in enumerate(self.path(arch)):
            if (index, slot, group) not in self._named:
                self._named[index, slot, group] = tuple(
                    dataclasses.replace(part, name=f"{index}.{part.name}")
                    for part in self._slices_of(slot, group)
                )
            slices += self._named[index, slot, group]
        return tuple(slices)

    def extract(self, arch: Arch) -> Network:
        """Build the standalone network of `arch` with a copy of its weights; its BN statistics are not set yet."""
        weights = dict(self.named_parameters())
        network = build_network(arch.blocks())
        targets = dict(network.named_parameters())
        with torch.no_grad():
            for part in self.slices(arch):
                targets.pop(part.name).copy_(part.take(weights[part.source]))
        if targets:
            raise ValueError(f"the supernet has no weights for {', '.join(targets)}")
        return network

    def weights_for(self, other: Supernet) -> dict[str, Tensor]:
        """Return the weights by name; if only `other` has own heads, parts of the shared head for each of them."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        if other.own_heads and not self.own_heads:
            for slot in other.slots.keys() - self.slots.keys():
                shared = slot.rpartition("_")[0]
                for part in slices_of(other._largest[slot], self._largest[shared], f"slots.{shared}."):
                    weights[f"slots.{slot}.{part.name}"] = part.take(weights[part.source])
            weights = {name: value for name, value in weights.items() if name.split(".")[1] in other.slots}
        return weights

    def path(self, arch: Arch) -> list[tuple[str, Group]]:
        """Return the slots that `arch` passes, in order, each with its blocks there."""
        if arch.classes != self.space.default_classes:
            raise UsageError(
                f"architecture has {arch.classes} classes, the supernet {self.space.default_classes}; "
                f"set the architecture's `classes` to {self.space.default_classes}",
                code="class_mismatch",
            )
        self.space.check(arch)
        return _slots(self.space, arch.stages, arch.resolution, arch.head, self.own_heads)

    def _slices_of(self, slot: str, group: Group) -> tuple[Slice, ...]:
        if (slot, group) not in self._slices:
            self._slices[slot, group] = slices_of(group, self._largest[slot], f"slots.{slot}.")
        return self._slices[slot, group]


def _slots(
    space: Space, stages: tuple[tuple[Value, ...], ...], resolution: int, head: str, own_heads: bool
) -> list[tuple[str, Group]]:
    """(slot, blocks) of a choice, in order of execution."""
    slots: list[tuple[str, Group]] = []
    channels, side = 3, resolution
    for stage, values in zip(space.stages, stages, strict=False):
        groups = group_blocks(expand_stage(stage, values, channels, side))
        slots += zip(stage_slots(stage, values, len(groups)), groups, strict=True)
        channels, side = stage.width(values), stage.out_resolution(side)
    slot = f"head_{head}_{len(stages)}" if own_heads else f"head_{head}"
    return [*slots, (slot, expand_head(head, channels, (side,), space.default_classes))]


def stage_ends(path: Sequence[tuple[str, Group]]) -> list[int]:
    """How many modules of a path its first stage has, its first two, and so on, the head left out."""
    stages = [slot.rpartition("_")[0] for slot, _ in path]
    return [end for end in range(1, len(path)) if stages[end] != stages[end - 1]]


def _largest(space: Space, own_heads: bool) -> dict[str, Group]:
    """Return, for every slot, what holds the weights of all its blocks.

    That is what a choice makes with all values at their largest, or one of them at its smallest: fewer heads have
    wider splits. Where values decide which slots there are, it is one of them at each of its others, next to every
    choice between kinds. Raises UsageError for a block that is not elastic, or not at several resolutions.
    """
    largest = tuple(tuple(max(allowed) for _, allowed in stage.choices) for stage in space.stages)
    corners = [largest]
    for index, stage in enumerate(space.stages):
        kinds = dict(stage.labels)
        rows = itertools.product(*(v if name in kinds else (max(v),) for name, v in stage.choices))
        for row, (place, (_, allowed)) in itertools.product(rows, enumerate(stage.choices)):
            for value in allowed if names_slots(stage) else (min(allowed),):
                corner = (*row[:place], value, *row[place + 1 :])
                corners.append((*largest[:index], corner, *largest[index + 1 :]))
    slots: dict[str, Group] = {}
    for count, head, stages in itertools.product(space.stage_counts, space.heads, corners):
        for slot, group in _slots(space, stages[:count], max(space.resolutions), head, own_heads):
            for block in group:
                why = "" if block.elastic else "is not elastic; choose another space"
                if block.resolution_bound and len(space.resolutions) > 1:
                    why = "has weights for one side of the map; give the space one resolution"
                if why:
                    raise UsageError(f"{space.name} has no supernet: {block.kind} {why}", code="not_elastic")
            slots[slot] = _covering(slots[slot], group) if slot in slots else group
    return slots


def _covering(first: Group, second: Group) -> Group:
    """Blocks that hold the weights of both groups, which differ in depth at most."""
    both = [a.covering(b) for a, b in zip(first, second, strict=False)]
    longer = max(first, second, key=len)
    return (*both, *longer[len(both) :])


DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(on: str, worker: int = 0) -> torch.device:
    """Return the device of a name, one of `DEVICES`; `auto` is a CUDA GPU where there is one, else the CPU.

    Several processes, counted by `worker`, take the GPUs in turn. Raises UsageError if there is no such device.
    """
    if on not in DEVICES:
        raise UsageError(
            f"no device {on!r} to compute on; use {', '.join(DEVICES[:-1])} or {DEVICES[-1]}",
            code="unknown_device",
        )
    gpus = torch.cuda.device_count()
    if on == "cpu" or (on == "auto" and not gpus):
        return torch.device("cpu")
    if on == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("no Metal device here for --on mps; use cpu", code="device_unavailable")
        return torch.device("mps")
    if not gpus:
        raise UsageError("no CUDA device here for --on cuda; use cpu", code="device_unavailable")
    return torch.device("cuda", worker % gpus)


def workers_on(kind: str, cores: int) -> int:
    """Return how many processes evaluate on a kind of device (`cpu`, `cuda`, `mps`): one per GPU, or per core."""
    return cores if kind == "cpu" else max(1, torch.cuda.device_count())
