"""Accuracy of subnets with inherited weights and recalibrated batch norms."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luts.format.errors import StorageError, UsageError
from luts.format.files import read_json, write_atomically
from luts.format.schema import FrozenModel
from search.networks import Network
from search.spaces import Arch, Space
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.model.supernet import Supernet, choose_device, stage_ends
from search.supernet.recipe.recipe import check_trained
from search.supernet.recipe.samplers import Sizes
from search.supernet.train.checkpoint import CheckpointInfo, load_supernet
from search.supernet.train.optimizer import computes_in_bf16

CACHE_BYTES = 512 << 20
"""Bytes of activations per cache: after all stages of small networks, after the last ones of large networks."""

Prefix = tuple[Hashable, ...]
"""What decides the first modules of a network and their input, an item a module after the first item."""

Buffers = dict[str, Tensor]


@dataclass(frozen=True)
class CachedPrefix:
    """Buffers of a network's first modules, and their outputs for every batch."""

    buffers: Buffers
    outputs: list[Tensor]


class PrefixCache:
    """First modules of networks that were run on the same batches; the least recently used are dropped first."""

    def __init__(self, max_bytes: int = CACHE_BYTES):
        """Create an empty cache of at most `max_bytes` of activations."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Prefix, CachedPrefix] = OrderedDict()

    def longest(self, path: Prefix) -> tuple[int, CachedPrefix | None]:
        """Return how many modules of `path` are cached, and their cached outputs."""
        for modules in range(len(path) - 1, 0, -1):
            entry = self._entries.get(path[: modules + 1])
            if entry is not None:
                self._entries.move_to_end(path[: modules + 1])
                return modules, entry
        return 0, None

    def add(self, prefix: Prefix, entry: CachedPrefix) -> None:
        """Add first modules; the caller leaves out too large ones."""
        self._entries[prefix] = entry
        total = sum(_bytes(each.outputs) for each in self._entries.values())
        while total > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            total -= _bytes(dropped.outputs)


class PrefixRun:
    """A run of a network over batches that starts at the longest cached prefix and caches its own prefixes."""

    def __init__(self, network: nn.Sequential, path: Prefix, ends: Sequence[int], cache: PrefixCache) -> None:
        """Find the longest cached prefix of a network.

        Args:
            network: Its modules run one after the other.
            path: What decides the batches, then an item for each module: equal ones give equal outputs.
            ends: Numbers of modules after which outputs may be cached.
            cache: Prefixes of earlier networks on the same batches.
        """
        self._cache, self._path = cache, path
        self._start, self.cached = cache.longest(path)
        self.modules = list(network)[self._start :]
        self._collected: dict[int, list[Tensor]] = {
            end: [] for end in ends if self._start < end < len(network)
        }

    def outputs(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the network's output for each batch (B, 3, H, W); batches are unused if a prefix is cached."""
        for x in self.cached.outputs if self.cached else batches:
            for position, module in enumerate(self.modules, self._start + 1):
                x = module(x)
                if position in self._collected:
                    self._collected[position].append(x)
            self._shrink()
            yield x

    def keep(self, buffers_of: Callable[[int], Buffers]) -> None:
        """Cache the prefixes of a finished run; `buffers_of` returns the buffers of so many first modules."""
        for end, outputs in self._collected.items():
            self._cache.add(self._path[: end + 1], CachedPrefix(buffers_of(end), outputs))

    def _shrink(self) -> None:
        """Drop the largest outputs until the rest fits."""
        sizes = {end: _bytes(outputs) for end, outputs in self._collected.items()}
        while sum(sizes.values()) > self._cache.max_bytes // 2:
            end = max(sizes, key=lambda end: sizes[end])
            del sizes[end], self._collected[end]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@torch.no_grad()
def recalibrate(
    network: nn.Sequential,
    batches: Iterable[Tensor],
    path: Prefix = (),
    ends: Sequence[int] = (),
    cache: PrefixCache | None = None,
) -> None:
    """Set BN's running statistics to the mean over `batches`, and leave the network in inference mode.

    `batches` are images (B, 3, H, W) each; the other arguments are those of `PrefixRun`.
    """
    run = PrefixRun(network, path, ends, cache or PrefixCache())
    norms = [part for module in run.modules for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for _ in run.outputs(batches):
        pass
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if run.cached:
        network.load_state_dict(run.cached.buffers, strict=False)
    run.keep(lambda end: _buffers(network, end))


def _buffers(network: nn.Sequential, end: int) -> Buffers:
    """Copy the statistics of the first `end` modules."""
    return {name: value.clone() for name, value in network.named_buffers() if int(name.split(".")[0]) < end}


@dataclass(frozen=True)
class Sharing:
    """Weight sharing among N subnets, in numbers of weights.

    Attributes:
        shared: w_shared, weights that all of them use.
        smallest, largest: Weights of the smallest and of the largest of them.
        supernet: Weights that are stored, of all subnets of the space.
        efficiency: E, 0 to 1.
    """

    subnets: int
    shared: int
    smallest: int
    largest: int
    supernet: int
    efficiency: float


def efficiency(shared: int, totals: Sequence[int]) -> float:
    """E of w_shared and every w_total,n."""
    return sum(shared / total for total in totals) / len(totals)


def sharing(space: Space, archs: Sequence[Arch]) -> Sharing:
    """Weight sharing of some subnets of a space's supernet."""
    with torch.device("meta"):
        supernet = Supernet(space)
    common: dict[str, tuple[tuple[int, int], ...]] | None = None
    for arch in archs:
        own = {part.source: tuple((s.start, s.stop) for s in part.index) for part in supernet.slices(arch)}
        common = own if common is None else _intersection(common, own)
    if common is None:
        raise ValueError("weights are shared by at least one subnet")
    shared = sum(math.prod(stop - start for start, stop in box) for box in common.values())
    totals = [arch.params() for arch in archs]
    stored = sum(parameter.numel() for parameter in supernet.parameters())
    return Sharing(len(archs), shared, min(totals), max(totals), stored, efficiency(shared, totals))


def partition(space: Space, supernets: int) -> list[list[Arch]]:
    """Random architectures of a space, divided by their parameters into as many ranges of equal counts.

    The supernets of AutoViT's section 3.2: each is trained on subnets of one range.
    """
    archs = [arch for _, arch in Sizes(space).reference]
    edges = [round(len(archs) * index / supernets) for index in range(supernets + 1)]
    return [archs[start:end] for start, end in itertools.pairwise(edges)]


def _intersection(
    a: dict[str, tuple[tuple[int, int], ...]], b: dict[str, tuple[tuple[int, int], ...]]
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Elements that two sets of boxes, one a parameter, have in common."""
    both = {
        name: tuple((max(s, u), min(e, v)) for (s, e), (u, v) in zip(box, b[name], strict=True))
        for name, box in a.items()
        if name in b
    }
    return {name: box for name, box in both.items() if all(start < end for start, end in box)}


MAX_BYTES = 16 << 20
"""Room for ten thousand architectures, far more than a final evaluation has."""


FINAL_FILE = "final.json"


class FinalScore(FrozenModel):
    """One evaluation; `arch` is its JSON, `weights_sha256` names the supernet's weights."""

    arch: str = Field(max_length=4096)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    top1: float = Field(ge=0, le=1)
    top5: float = Field(ge=0, le=1)


class FinalScores(FrozenModel):
    """All final evaluations of a supernet, in the order in which they were made."""

    format: Literal[1] = 1
    scores: tuple[FinalScore, ...] = ()


def record_final(path: Path, score: FinalScore, shared: Path | None = None) -> int:
    """Record a final evaluation; return how many other architectures were evaluated with the same weights before.

    `shared` is another record that counts and is not written.

    Raises:
        InvalidArtifactError: a record is damaged.
        StorageError: it can't be written.
    """
    scores, others = _scores(path), _scores(shared) if shared else ()
    if score not in scores:
        try:
            document = FinalScores(scores=(*scores, score))
            write_atomically(path, document.model_dump_json(indent=1).encode())
        except OSError as error:
            raise StorageError(
                f"{path}: cannot record this use of the validation set ({error.strerror}); make it writable",
                code="record_not_written",
            ) from error
    judged = {s.arch for s in (*scores, *others) if s.weights_sha256 == score.weights_sha256}
    return len(judged - {score.arch})


def _scores(path: Path) -> tuple[FinalScore, ...]:
    return read_json(path, FinalScores, MAX_BYTES, "restore it").scores if path.exists() else ()


CALIBRATION_BATCHES = 64
"""Training batches for BN statistics; all training images where there are fewer."""


@dataclass(frozen=True)
class Scores:
    """Shares of images, 0 to 1, whose label is the first guess, and among the first five."""

    top1: float
    top5: float


def reopen_data(info: CheckpointInfo, source: str | None = None) -> ImageData:
    """Open the images that a supernet was trained on, split alike; `source` if they have moved."""
    return ImageData(
        open_source(source or info.source), info.split_seed, info.split_fraction, info.image_side
    )


class InheritedAccuracy:
    """Accuracy of subnets on images held out of training: the search split, or once at the end validation.

    Supernets trained in bf16 are evaluated in bf16 where the device supports it, all others in fp32.
    """

    def __init__(
        self,
        supernet: Supernet,
        info: CheckpointInfo,
        data: ImageData,
        *,
        final: bool = False,
        calibration_batches: int = CALIBRATION_BATCHES,
        batch_size: int = 128,
    ):
        """Prepare an evaluation; with `final` on the validation split, which must not decide any choice.

        Raises UsageError for other data than the supernet was trained on: nothing of them is known to be held out.
        """
        trained_on = (info.data_digest, info.split_seed, info.split_fraction, info.image_side)
        if trained_on != (data.source.digest, data.seed, data.fraction, data.side):
            raise UsageError(
                f"the supernet was trained on {info.source}, {data.source.name} differs in images or split; "
                "evaluate on the same data",
                code="data_mismatch",
            )
        self.supernet, self.info, self.data, self.batch_size = supernet, info, data, batch_size
        self.split_name: Literal["search", "validation"] = "validation" if final else "search"
        self.held_out = data.split.validation if final else data.split.search
        shuffled = np.random.default_rng(0).permutation(data.split.train)
        self._calibration = shuffled[: calibration_batches * batch_size]
        self._compute_on(torch.device("cpu"))
        self._described = (
            info.weights_sha256,
            *trained_on,
            self.split_name,
            len(self._calibration),
            batch_size,
        )

    def move_to(self, on: str | torch.device, worker: int = 0) -> None:
        """Compute there from now on, one of `DEVICES`; `UsageError` where there is none."""
        self._compute_on(choose_device(on, worker) if isinstance(on, str) else on)
        self.supernet.to(self.device)

    def _compute_on(self, device: torch.device) -> None:
        self.device = device
        self.prefixes, self._evaluated = PrefixCache(), PrefixCache()
        recipe = self.info.recipe
        self._layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        self._bf16 = recipe.precision == "bf16" and computes_in_bf16(device)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything besides the architecture that decides an accuracy; devices round differently."""
        described = self._described if self.device.type == "cpu" else (*self._described, self.device.type)
        described = (*described, "bf16") if self._bf16 else described
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def network(self, arch: Arch) -> Network:
        """Return the standalone network with inherited weights and its own BN statistics, for inference.

        Raises UsageError for one of another space, or another than the one that was trained alone.
        """
        check_trained(arch, self.info.recipe, self.supernet.space)
        path = self.supernet.path(arch)
        network = self.supernet.extract(arch).to(self.device)
        network.to(memory_format=self._layout)
        with self._autocast():
            recalibrate(
                network,
                self._images(self._calibration, arch.resolution),
                (arch.resolution, *path),
                stage_ends(path),
                self.prefixes,
            )
        network.to(memory_format=torch.contiguous_format)
        return network

    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.scores(arch).top1

    def scores(self, arch: Arch) -> Scores:
        """Top-1 and top-5 on the held-out images; with fewer than five classes all of them count."""
        logits, labels = self.outputs(arch)
        right = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        return Scores(int(right[:, 0].sum()) / len(labels), int(right.any(1).sum()) / len(labels))

    @torch.no_grad()
    def outputs(self, arch: Arch) -> tuple[Tensor, Tensor]:
        """Logits (N, classes) for the held-out images, fp32 or bf16, and their labels (N,)."""
        network, path = self.network(arch), self.supernet.path(arch)
        network.to(memory_format=self._layout)
        run = PrefixRun(network, (arch.resolution, *path), stage_ends(path), self._evaluated)
        with self._autocast():
            logits = torch.cat(list(run.outputs(self._images(self.held_out, arch.resolution))))
        run.keep(lambda _: {})
        return logits, self.data.labels[torch.from_numpy(self.held_out)].to(self.device)

    def _images(self, indices: np.ndarray, resolution: int) -> Iterator[Tensor]:
        for images, _ in self.data.batches(indices, resolution, self.batch_size):
            yield images.to(self.device, memory_format=self._layout)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._bf16 else nullcontext()


@dataclass(frozen=True)
class InheritedLikelihood:
    """Scores networks by the labels' probabilities, which differ for networks with the same predictions."""

    inherited: InheritedAccuracy

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the accuracy, marked."""
        return hashlib.sha256(f"likelihood {self.inherited.fingerprint}".encode()).hexdigest()

    def move_to(self, on: str | torch.device, worker: int = 0) -> None:
        """Move like `InheritedAccuracy`."""
        self.inherited.move_to(on, worker)

    def accuracy(self, arch: Arch) -> float:
        """Geometric mean of the labels' probabilities: exp of minus the cross-entropy, 0 to 1."""
        logits, labels = self.inherited.outputs(arch)
        return math.exp(-float(F.cross_entropy(logits.float(), labels)))


def open_inherited(supernet: Path, data: str | None = None) -> InheritedAccuracy:
    """Open a trained supernet's folder; `data` is the text of the image source if the images have moved."""
    network, info = load_supernet(supernet)
    return InheritedAccuracy(network, info, reopen_data(info, data))
