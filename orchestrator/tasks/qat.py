"""Fine-tuning of one trained network with fake quantisation, so that less of its accuracy is lost in int8."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from luts.format.errors import BlocktimeError, UsageError
from luts.format.files import check_folder, write_atomically, write_json
from orchestrator.export import ExportSpec
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.progress import Progress, Step, silent
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.card import weighted
from search.spaces import Arch, arch_from_json
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.schedule import Part

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class FineTuned:
    """Weights of `arch` in `weights`, for `bench export --weights`; the loss is the mean of the last epoch."""

    arch: Arch
    weights: Path
    steps: int
    loss: float
    seconds: float


def train_quantized(
    data: str, output: Path, recipe: Recipe, init: str, *, progress: Progress = silent
) -> FineTuned:
    """Go on from trained weights with int8's rounding in the network.

    Args:
        data: Text of the image source.
        output: Folder that gets the weights, the architecture and `qat.json`.
        recipe: Names the network; of the rest epochs, batch size, learning rates, weight decay, label smoothing,
            largest norm, augmentation and seed count. It begins anew each time.
        init: `supernet:DIR`, or `FILE.safetensors` of the network.
        progress: Told of every step.

    Raises:
        UsageError: no network, no such weights, or fewer images than a batch.
        InvalidArtifactError: weights that do not fit the network with the images' classes; names a tensor.
        BlocktimeError: the network can't be captured for training, or the loss is not finite.
    """
    if recipe.arch is None:
        raise UsageError("--qat fine-tunes one network; name it with --arch")
    if recipe.augmentation.mixes:
        raise UsageError("--qat takes no Mixup and CutMix; choose another --recipe, such as finetune")
    check_folder(output)
    started = time.monotonic()
    arch = arch_from_json(recipe.arch)
    images = ImageData(open_source(data), fraction=recipe.held_out, largest_side=arch.resolution)
    arch, network = _initial(arch.with_classes(images.classes), init, progress)
    steps = len(images.split.train) // recipe.batch_size
    if not steps:
        raise UsageError(
            f"{data} has {len(images.split.train)} training images, less than a batch; lower --batch-size"
        )
    trained, loss = _train(network, arch, images, recipe, steps, progress)
    weights = output / WEIGHTS_FILE
    write_atomically(weights, save(trained))
    write_json(output / "arch.json", arch.to_document())
    said = {
        "init": init,
        "data": images.source.digest,
        "recipe": recipe.model_dump(mode="json"),
        "loss": loss,
    }
    write_json(output / "qat.json", said)
    return FineTuned(arch, weights, steps * recipe.epochs, loss, time.monotonic() - started)


def _initial(arch: Arch, init: str, progress: Progress) -> tuple[Arch, nn.Module]:
    """The network with its weights."""
    kind, _, folder = init.partition(":")
    with tempfile.TemporaryDirectory() as scratch:
        if kind == "supernet" and folder:
            given = Trained(supernet=Path(folder))
            ((arch, file),) = inherit({"network": arch}, None, given, Path(scratch), progress).values()
        elif init.endswith(".safetensors"):
            file = Path(init)
        else:
            raise UsageError(f"--init {init!r} are not weights; give supernet:DIR or FILE.safetensors")
        return arch, build_module(weighted(ExportSpec(arch.keys()), file))[0]


def _train(
    network: nn.Module, arch: Arch, images: ImageData, recipe: Recipe, steps: int, progress: Progress
) -> tuple[dict[str, torch.Tensor], float]:
    from orchestrator.export.lower.quantize import weights_of, with_fake_quantization

    prepared: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    losses: list[float] = []
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(images.split.train)
        losses = []
        for position in range(steps):
            step = epoch * steps + position
            chosen = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
            batch, labels = images.training_batch(
                Part(chosen, arch.resolution, recipe.seed * 1_000_003 + step), recipe.augmentation
            )
            if prepared is None or optimizer is None:
                prepared = with_fake_quantization(network, batch)
                optimizer = torch.optim.AdamW(
                    prepared.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay
                )
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(step, steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(prepared(batch), labels, label_smoothing=recipe.label_smoothing)
            torch.autograd.backward(loss)
            if recipe.clip_norm:
                torch.nn.utils.clip_grad_norm_(prepared.parameters(), recipe.clip_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise BlocktimeError(f"the loss of step {step} is not finite; lower --learning-rate")
            progress(Step("fine-tuning for int8", step + 1, steps * recipe.epochs, f"loss {losses[-1]:.3f}"))
    assert prepared is not None
    return dict(weights_of(prepared, network)), sum(losses) / len(losses)
