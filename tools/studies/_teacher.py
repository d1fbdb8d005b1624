"""A teacher for images that no package has one for: ImageNet weights, fine-tuned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save

from luts.format.files import write_atomically
from orchestrator.journal.runs import runs_root
from search.supernet.data.images import ImageData
from search.supernet.recipe.recipe import Recipe
from search.supernet.train.teacher import Teacher, load_teacher
from tools.studies._training import mirrored

NETWORK = "tf_efficientnet_lite0"
SIDE = 48
IMAGENET_CLASSES = 1000
RECIPE = Recipe(
    name="teacher", epochs=2, batch_size=64, learning_rate=1e-3, warmup_epochs=0.1, weight_decay=0.02
)
QUICK_STEPS = 2
REPORT_STEPS = 100


def teacher_file(data: ImageData, quick: bool) -> Path:
    """Weights of the teacher, fine-tuned on the training images where that was not done yet.

    Raises:
        UsageError: the package with its ImageNet weights is not installed.
    """
    said = json.dumps(
        [NETWORK, SIDE, RECIPE.model_dump(mode="json"), data.source.digest, quick], sort_keys=True
    )
    path = runs_root() / "studies" / f"teacher-{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        _fine_tune(data, path, quick)
    return path


def load(data: ImageData, path: Path) -> Teacher:
    """The fine-tuned teacher."""
    return load_teacher(f"timm:{NETWORK}:{path}", data.classes, SIDE)


def _fine_tune(data: ImageData, path: Path, quick: bool) -> None:
    torch.manual_seed(0)
    teacher = load_teacher(f"timm:{NETWORK}", IMAGENET_CLASSES, SIDE)
    model: Any = teacher.model.requires_grad_(True)
    model.reset_classifier(data.classes)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay
    )
    steps = QUICK_STEPS if quick else len(data.split.train) // RECIPE.batch_size
    rng = np.random.default_rng(0)
    for epoch in range(RECIPE.epochs):
        order = rng.permutation(data.split.train)
        for position in range(steps):
            chosen = order[position * RECIPE.batch_size : (position + 1) * RECIPE.batch_size]
            images, labels = data.batch(chosen, data.side)
            images = mirrored(images, data, rng)
            for group in optimizer.param_groups:
                group["lr"] = RECIPE.learning_rate_at(epoch * steps + position, steps)
            optimizer.zero_grad()
            logits = model(teacher.seen(images).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=RECIPE.label_smoothing)
            torch.autograd.backward(loss)
            optimizer.step()
            if position % REPORT_STEPS == 0:
                print(f"teacher: epoch {epoch + 1}, step {position} of {steps}, loss {loss:.3f}", flush=True)
    write_atomically(path, save({name: value.contiguous() for name, value in model.state_dict().items()}))
