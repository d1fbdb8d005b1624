"""Networks trained once and kept: a checkpoint an epoch in the runs' folder, found again by what decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import write_atomically
from orchestrator.export.artifacts.spec import toolchain
from orchestrator.journal.runs import runs_root
from search.blocks import parse_keys
from search.networks import Network, build_network
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import Recipe
from tools.studies._options import Options
from tools.studies._processes import side_by_side

QUICK_STEPS = 3
BATCH = 128
LEARNING_RATE = 4e-3
HELD_OUT = 0.1
MAX_CHECKPOINT_BYTES = 1 << 28
"""A hundred times the networks of the studies with their optimizer state."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        keys: The network's blocks.
        data: Text of the image source.
        digest: Of its images.
        epochs: Passes over the training images; with `quick` a few steps each.
    """

    keys: tuple[str, ...]
    data: str
    digest: str
    epochs: int
    seed: int
    quick: bool

    @property
    def path(self) -> Path:
        """Of its checkpoint."""
        learning = [BATCH, LEARNING_RATE, HELD_OUT, toolchain()["sources"]]
        identity = asdict(self) | {"data": "", "learning": learning}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return runs_root() / "studies" / f"trained-{digest[:16]}.safetensors"


@dataclass(frozen=True)
class Trained:
    """A trained network in inference mode, and its top-1 accuracy on images that training has not seen."""

    network: Network
    accuracy: float


def open_images(data: str | None, quick: bool) -> ImageData:
    """The images to train on; `UsageError` where none are named."""
    if data is None and not quick:
        raise UsageError(
            "this study trains networks; give --data, such as npz:FILE or cifar10:DIR, or --quick"
        )
    return ImageData(open_source(data or "digits"), fraction=HELD_OUT, largest_side=32)


def judged(images: ImageData, quick: bool) -> np.ndarray:
    """Indices of the images that accuracy is taken on."""
    return images.split.validation[: BATCH if quick else None]


def train_all(jobs: Sequence[Job], options: Options) -> list[Trained]:
    """Train what is not trained yet, side by side, and load all of them."""
    side_by_side(_train, [job for job in jobs if not _finished(job)], options)
    return [_load(job) for job in jobs]


def _train(job: Job, _on: str, _number: int) -> None:
    images = open_images(job.data, job.quick)
    torch.manual_seed(job.seed)
    network = build_network(parse_keys(job.keys)).to(memory_format=torch.channels_last)
    recipe = Recipe(
        name="study", epochs=job.epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, warmup_epochs=0.3
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=recipe.weight_decay)
    steps = QUICK_STEPS if job.quick else len(images.split.train) // BATCH
    first = _resume(job, network, optimizer) if job.path.exists() else 0
    for epoch in range(first, job.epochs):
        rng = np.random.default_rng((job.seed, epoch))
        order = rng.permutation(images.split.train)
        network.train()
        for position in range(steps):
            inputs, labels = images.batch(order[position * BATCH : (position + 1) * BATCH], 32)
            inputs = mirrored(inputs, images, rng)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(epoch * steps + position, steps)
            optimizer.zero_grad()
            logits = network(inputs.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
        accuracy = _accuracy(network, images, job.quick)
        _save(job, network, optimizer, epoch + 1, accuracy)
        print(f"{job.path.stem}: epoch {epoch + 1} of {job.epochs}, accuracy {accuracy:.1%}", flush=True)


def mirrored(inputs: Tensor, images: ImageData, rng: np.random.Generator) -> Tensor:
    """Every other image (B, 3, H, W) mirrored, at random, where the source allows it."""
    if not images.source.flips:
        return inputs
    chosen = torch.from_numpy(rng.random(len(inputs)) < 0.5)
    return torch.where(chosen[:, None, None, None], inputs.flip(3), inputs)


@torch.no_grad()
def _accuracy(network: Network, images: ImageData, quick: bool) -> float:
    network.eval()
    held_out = judged(images, quick)
    hits = [
        int((network(inputs).argmax(1) == labels).sum())
        for inputs, labels in images.batches(held_out, 32, 4 * BATCH)
    ]
    return sum(hits) / len(held_out)


def _save(job: Job, network: Network, optimizer: torch.optim.AdamW, epoch: int, accuracy: float) -> None:
    tensors = {f"network/{name}": value.contiguous() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {f"{key}/{name}": state[key].contiguous() for key in ("exp_avg", "exp_avg_sq", "step")}
    write_atomically(job.path, save(tensors, {"epoch": str(epoch), "accuracy": repr(accuracy)}))


def _resume(job: Job, network: Network, optimizer: torch.optim.AdamW) -> int:
    """Put a checkpoint's state into network and optimizer; the number of epochs it has."""
    tensors, epoch, _ = _read(job.path)
    _put(job.path, network, tensors)
    for name, parameter in network.named_parameters():
        optimizer.state[parameter] = {
            key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq", "step")
        }
    return epoch


def _finished(job: Job) -> bool:
    return job.path.exists() and _read(job.path)[1] >= job.epochs


def _load(job: Job) -> Trained:
    tensors, _, accuracy = _read(job.path)
    network = build_network(parse_keys(job.keys))
    _put(job.path, network, tensors)
    return Trained(network.eval(), accuracy)


def _read(path: Path) -> tuple[dict[str, Tensor], int, float]:
    """Tensors, epochs done and accuracy.

    Raises:
        InvalidArtifactError: the file is damaged.
    """
    try:
        if path.stat().st_size > MAX_CHECKPOINT_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_CHECKPOINT_BYTES} bytes; remove it and train again"
            )
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            return (
                {name: file.get_tensor(name) for name in file.keys()},
                int(said["epoch"]),
                float(said["accuracy"]),
            )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error}); remove it and train again") from error


def _put(path: Path, network: Network, tensors: dict[str, Tensor]) -> None:
    weights = {n.removeprefix("network/"): value for n, value in tensors.items() if n.startswith("network/")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidArtifactError(
            f"{path}: weights of another network; remove it and train again"
        ) from error
